//! The lock service of etcd (`v3lock`), called over gRPC like Tidings.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tidings_load::BenchCall;
use tidings_proto::Codec;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::process::{ChildProcess, PeerPrograms, free_port, wait_for_port};

const CONNECTIONS: usize = 4;

/// An etcd cluster of one node.
pub(crate) struct Etcd {
    port: u16,
    _process: ChildProcess,
}

// The parts of etcd's contracts that are used.

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
    /// Starts a node with an empty data directory `dir`; returns `None` if etcd is not available.
    pub(crate) async fn start(programs: &PeerPrograms, dir: &Path) -> Option<Self> {
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
        let process = ChildProcess(process.unwrap());
        wait_for_port(port).await;
        Some(Self { port, _process: process })
    }

    /// Returns a call that acquires a lock of its caller, under a lease, and releases it.
    pub(crate) async fn lock(&self, callers: usize) -> BenchCall {
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
        Arc::new(move |slot| {
            let (channel, lease) = (channels[slot.caller % CONNECTIONS].clone(), leases[slot.caller]);
            Box::pin(async move {
                let request = LockRequest { name: format!("lock-{}", slot.caller).into(), lease };
                let LockResponse { key } = call(channel.clone(), "/v3lockpb.Lock/Lock", request).await?;
                let UnlockResponse {} = call(channel, "/v3lockpb.Lock/Unlock", UnlockRequest { key }).await?;
                Ok(1)
            })
        })
    }
}

/// Makes a unary call.
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
