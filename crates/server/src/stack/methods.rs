//! The method table as the stack reads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tidings_proto::{Method, Work};
use tonic::Code;

/// What is served besides what is in the table: open to everybody, and streams end with the process.
const OPEN: [(&str, &str, bool); 5] = [
    ("grpc.health.v1.Health", "Check", false),
    ("grpc.health.v1.Health", "List", false),
    ("grpc.health.v1.Health", "Watch", true),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", true),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", true),
];
/// What methods that nobody knows are counted as: their names are the callers', and without end.
const OTHER: &str = "_other";

/// All methods that are served, by their paths.
#[derive(Debug)]
pub(crate) struct Methods {
    known: HashMap<String, Arc<Entry>>,
    other: Arc<Entry>,
}

/// One method.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its line in the table, if it has one.
    pub(crate) method: Option<&'static Method>,
    pub(crate) kind: Kind,
    /// How long it may take at most.
    pub(crate) cap: Option<Duration>,
    pub(crate) numbers: Numbers,
}

/// How a method is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call in flight.
    Brief,
    /// Bounded by its service.
    Waiting,
    /// One of the streams of the process.
    Stream,
    /// Not at all, with one answer.
    Open,
    /// Not at all, with a stream of answers.
    OpenStream,
}

/// What is counted of a method.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) started: Counter,
    pub(crate) handled: [Counter; 17],
    pub(crate) seconds: Histogram,
}

impl Methods {
    /// The methods of the table whose contracts are among `served`, and what every server serves.
    pub(crate) fn new(table: &'static [Method], served: &[&str]) -> Self {
        let of_services = table.iter().filter(|method| served.contains(&method.contract()));
        let mut known: HashMap<_, _> =
            of_services.map(|method| (format!("/{}", method.name), Arc::new(Entry::of(method)))).collect();
        for (contract, name, stream) in OPEN {
            let (kind, kind_of_call) = if stream { (Kind::OpenStream, "server_stream") } else { (Kind::Open, "unary") };
            let numbers = Numbers::new(kind_of_call, contract, name);
            let entry = Entry { method: None, kind, cap: None, numbers };
            known.insert(format!("/{contract}/{name}"), Arc::new(entry));
        }
        let numbers = Numbers::new("unary", OTHER, OTHER);
        let other = Entry { method: None, kind: Kind::Brief, cap: Some(Duration::from_secs(5)), numbers };
        Self { known, other: Arc::new(other) }
    }

    /// The method of a path; a path that nobody serves has the entry that all such paths share.
    pub(crate) fn of(&self, path: &str) -> Arc<Entry> {
        Arc::clone(self.known.get(path).unwrap_or(&self.other))
    }
}

impl Entry {
    fn of(method: &'static Method) -> Self {
        let (kind, kind_of_call) = match method.work {
            Work::Brief(_) => (Kind::Brief, "unary"),
            Work::Waiting(_) => (Kind::Waiting, "unary"),
            Work::Stream => (Kind::Stream, "server_stream"),
        };
        let numbers = Numbers::new(kind_of_call, method.contract(), method.short_name());
        Self { method: Some(method), kind, cap: method.cap(), numbers }
    }
}

impl Kind {
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::OpenStream)
    }

    /// Whether whoever can connect may call it.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::OpenStream)
    }
}

impl Numbers {
    /// All of them from the start, so that a rate can be told from the first call on.
    fn new(kind: &'static str, service: &'static str, method: &'static str) -> Self {
        let labels = [("grpc_type", kind), ("grpc_service", service), ("grpc_method", method)];
        let handled = std::array::from_fn(|code| {
            let code = crate::codes::name(Code::from_i32(i32::try_from(code).unwrap_or(2)));
            counter!("grpc_server_handled_total", &[labels[0], labels[1], labels[2], ("grpc_code", code)])
        });
        Self {
            started: counter!("grpc_server_started_total", &labels),
            handled,
            seconds: histogram!("grpc_server_handling_seconds", &labels),
        }
    }
}
