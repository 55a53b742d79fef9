//! etcd: puts to the leader over gRPC. The few messages that are needed are written down here.

use std::path::Path;

use anyhow::{Context, bail};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

/// Writers that share a connection, as etcd's own guide to benchmarks has them.
const WRITERS_A_CONNECTION: usize = 10;
/// Keys of one writer: it goes round.
const KEYS: u64 = 1_000;

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

pub struct Writer {
    grpc: Grpc<Channel>,
    number: usize,
    count: u64,
}

impl crate::load::Writer for Writer {
    async fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.count += 1;
        let request = PutRequest {
            key: format!("log/{:03}/{:04}", self.number, self.count % KEYS).into_bytes(),
            value: body.to_vec(),
        };
        let put: PutResponse = call(&mut self.grpc, "/etcdserverpb.KV/Put", request).await?;
        put.header.map(drop).context("a put without a header")
    }
}

/// Writers at whichever of these endpoints (`host:port`, by commas) leads.
pub async fn writers(
    endpoints: &str,
    tls: Option<&Path>,
    count: usize,
) -> anyhow::Result<Vec<Writer>> {
    let leader = leader(endpoints, tls).await?;
    let mut writers = Vec::new();
    let mut channel = None;
    for number in 0..count {
        let channel = match (&channel, number % WRITERS_A_CONNECTION) {
            (Some(open), 1..) => Channel::clone(open),
            _ => channel.insert(connect(&leader, tls).await?).clone(),
        };
        writers.push(Writer {
            grpc: Grpc::new(channel),
            number,
            count: 0,
        });
    }
    Ok(writers)
}

/// The endpoint that says that it leads.
pub async fn leader(endpoints: &str, tls: Option<&Path>) -> anyhow::Result<String> {
    for endpoint in endpoints.split(',') {
        let mut grpc = Grpc::new(connect(endpoint, tls).await?);
        let path = "/etcdserverpb.Maintenance/Status";
        let status: StatusResponse = call(&mut grpc, path, StatusRequest {}).await?;
        if status.leader != 0 && status.header.map(|header| header.member_id) == Some(status.leader)
        {
            return Ok(endpoint.to_owned());
        }
    }
    bail!("no etcd of {endpoints} leads")
}

async fn connect(endpoint: &str, tls: Option<&Path>) -> anyhow::Result<Channel> {
    let Some(folder) = tls else {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?;
        return Ok(endpoint.tcp_nodelay(true).connect().await?);
    };
    let read = |name: &str| std::fs::read(folder.join(name));
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")?))
        .identity(Identity::from_pem(read("cert.pem")?, read("key.pem")?))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{endpoint}"))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .tls_config(config)?
        .connect()
        .await?)
}

async fn call<Q, A>(grpc: &mut Grpc<Channel>, path: &'static str, request: Q) -> anyhow::Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    grpc.ready().await?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc
        .unary(tonic::Request::new(request), path, codec)
        .await?;
    Ok(answer.into_inner())
}
