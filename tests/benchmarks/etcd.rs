//! The lock service of etcd, `v3lock`, called over gRPC as Tidings is.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tidings::load::Call;
use tidings_proto::Codec;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::process::{Process, Programs, free_port, listens};

const CONNECTIONS: usize = 4;

/// A node of etcd.
pub(crate) struct Etcd {
    port: u16,
    _process: Process,
}

// What is called of etcd's contracts, with the fields that are used.

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockResponse {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnlockResponse {}

impl Etcd {
    /// Starts one that keeps its data in `dir`, which it may empty; nothing if it is not to be had.
    pub(crate) async fn start(programs: &Programs, dir: &Path) -> Option<Self> {
        let _ = fs::remove_dir_all(dir);
        let [port, peers] = [free_port(), free_port()];
        let [client, peer] = [port, peers].map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new(programs.etcd.as_ref()?)
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(process.unwrap());
        listens(port).await;
        Some(Self { port, _process: process })
    }

    /// Takes a lock of the caller's own under its lease, and releases it.
    pub(crate) async fn lock(&self, callers: usize) -> Call {
        let address: &'static str = format!("http://127.0.0.1:{}", self.port).leak();
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(Channel::from_static(address).tcp_nodelay(true).connect().await.unwrap());
        }
        let mut leases = Vec::new();
        for caller in 0..callers {
            let request = LeaseGrantRequest { ttl: 3600 };
            let channel = channels[caller % CONNECTIONS].clone();
            let granted: LeaseGrantResponse = call(channel, "/etcdserverpb.Lease/LeaseGrant", request).await.unwrap();
            leases.push(granted.id);
        }
        Arc::new(move |turn| {
            let (channel, lease) = (channels[turn.caller % CONNECTIONS].clone(), leases[turn.caller]);
            Box::pin(async move {
                let request = LockRequest { name: format!("lock-{}", turn.caller).into(), lease };
                let LockResponse { key } = call(channel.clone(), "/v3lockpb.Lock/Lock", request).await?;
                let UnlockResponse {} = call(channel, "/v3lockpb.Lock/Unlock", UnlockRequest { key }).await?;
                Ok(1)
            })
        })
    }
}

/// Calls a method once.
async fn call<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = Codec::default();
    Ok(client.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
}
