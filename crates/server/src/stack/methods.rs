//! The methods that a server serves, with their limits and metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tidings_proto::{Method, Work};
use tonic::Code;

/// Methods that are not in the method table: they need no token and have no limit. The flag marks
/// streams, which end with their connection.
const PUBLIC: [(&str, &str, bool); 5] = [
    ("grpc.health.v1.Health", "Check", false),
    ("grpc.health.v1.Health", "List", false),
    ("grpc.health.v1.Health", "Watch", true),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", true),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", true),
];
/// Metric label of unknown methods: their names come from callers and are unbounded.
const UNKNOWN: &str = "_other";

/// All served methods, by path.
#[derive(Debug)]
pub(crate) struct Methods {
    known: HashMap<String, Arc<MethodEntry>>,
    unknown: Arc<MethodEntry>,
}

/// A method with its kind, its cap and its metrics.
#[derive(Debug)]
pub(crate) struct MethodEntry {
    /// Its row in the method table, if it has one.
    pub(crate) method: Option<&'static Method>,
    pub(crate) kind: CallKind,
    /// Longest duration of a call.
    pub(crate) cap: Option<Duration>,
    pub(crate) metrics: MethodMetrics,
}

/// The concurrency limit that applies to a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Counted as a call in flight.
    Brief,
    /// Limited by its service.
    Waiting,
    /// Counted as an open stream.
    Stream,
    /// Unlimited and without token; unary.
    Public,
    /// Unlimited and without token; a stream of responses.
    PublicStream,
}

/// The metrics of a method.
#[derive(Debug)]
pub(crate) struct MethodMetrics {
    pub(crate) started: Counter,
    pub(crate) handled: [Counter; 17],
    pub(crate) seconds: Histogram,
}

impl Methods {
    /// Collects the methods of the served contracts, and those that every server serves.
    pub(crate) fn new(table: &'static [Method], served: &[&str]) -> Self {
        let of_services = table.iter().filter(|method| served.contains(&method.contract()));
        let mut known: HashMap<_, _> =
            of_services.map(|method| (format!("/{}", method.name), Arc::new(MethodEntry::of(method)))).collect();
        for (contract, name, stream) in PUBLIC {
            let (kind, grpc_type) =
                if stream { (CallKind::PublicStream, "server_stream") } else { (CallKind::Public, "unary") };
            let metrics = MethodMetrics::new(grpc_type, contract, name);
            let entry = MethodEntry { method: None, kind, cap: None, metrics };
            known.insert(format!("/{contract}/{name}"), Arc::new(entry));
        }
        let metrics = MethodMetrics::new("unary", UNKNOWN, UNKNOWN);
        let unknown = MethodEntry { method: None, kind: CallKind::Brief, cap: Some(Duration::from_secs(5)), metrics };
        Self { known, unknown: Arc::new(unknown) }
    }

    /// Returns the entry of a path; all unknown paths share one entry.
    pub(crate) fn of(&self, path: &str) -> Arc<MethodEntry> {
        Arc::clone(self.known.get(path).unwrap_or(&self.unknown))
    }
}

impl MethodEntry {
    fn of(method: &'static Method) -> Self {
        let (kind, grpc_type) = match method.work {
            Work::Brief(_) => (CallKind::Brief, "unary"),
            Work::Waiting(_) => (CallKind::Waiting, "unary"),
            Work::Stream => (CallKind::Stream, "server_stream"),
        };
        let metrics = MethodMetrics::new(grpc_type, method.contract(), method.short_name());
        Self { method: Some(method), kind, cap: method.cap(), metrics }
    }
}

impl CallKind {
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::PublicStream)
    }

    /// Returns whether the method needs no token.
    pub(crate) fn is_public(self) -> bool {
        matches!(self, Self::Public | Self::PublicStream)
    }
}

impl MethodMetrics {
    /// Registers all metrics at the start, so that rates are correct from the first call on.
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
