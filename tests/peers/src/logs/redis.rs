//! Redis as just a log: RPUSH, one connection a writer.

use std::io::Write as _;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Writer {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    reply: String,
}

/// One connection each, to `host:port`.
pub async fn writers(address: &str, count: usize) -> anyhow::Result<Vec<Writer>> {
    let mut writers = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address)
            .await
            .context("connecting to Redis")?;
        stream.set_nodelay(true)?;
        writers.push(Writer {
            stream: BufReader::new(stream),
            request: Vec::new(),
            reply: String::new(),
        });
    }
    Ok(writers)
}

impl crate::load::Writer for Writer {
    async fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.request.clear();
        write!(
            self.request,
            "*3\r\n$5\r\nRPUSH\r\n$3\r\nlog\r\n${}\r\n",
            body.len()
        )?;
        self.request.extend_from_slice(body);
        self.request.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.request).await?;
        self.reply.clear();
        self.stream.read_line(&mut self.reply).await?;
        ensure!(self.reply.starts_with(':'), "Redis says {:?}", self.reply);
        Ok(())
    }
}
