//! A lean HTTP/1.1 client: prepared bytes out, status and body back, over one kept connection.
//!
//! The generator shares its cores with what it measures, so that it does as little as it can.
//! Understands what our servers send: `Content-Length` bodies. Anything else is an error.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest response read.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

// === impl Wire ===

impl Wire {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let buffer = Vec::with_capacity(4_096);
        Ok(Self { stream, buffer })
    }

    /// Sends one request and reads its response. After an error, or when dropped half way, the
    /// connection must not be used again.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (status, head, length) = loop {
            if let Some(found) = head(&self.buffer)? {
                break found;
            }
            self.fill().await?;
        };
        let end = head.saturating_add(length);
        while self.buffer.len() < end {
            self.fill().await?;
        }
        Ok((status, self.buffer.get(head..end).unwrap_or_default()))
    }

    /// A GET of `path`, for counters and status pages.
    pub async fn get(&mut self, path: &str) -> io::Result<(u16, &[u8])> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.exchange(request.as_bytes()).await
    }

    /// A POST of unsigned JSON, for operators' orders.
    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<(u16, &[u8])> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.exchange(request.as_bytes()).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() > RESPONSE_BYTES_MAX {
            return Err(io::Error::other("the response is too long"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Status, length of the head, length of the body; `None` while the head is not complete.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let wrong = || io::Error::other("not a response we understand");
    let text = bytes
        .get(..end)
        .and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or_else(wrong)?.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|code| code.parse().ok())
        .ok_or_else(wrong)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(wrong)?;
    Ok(Some((status, end.saturating_add(4), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let response = b"HTTP/1.1 402 Payment Required\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        let read = head(response).unwrap();
        assert_eq!(read, Some((402, response.len() - 2, 2)));
        assert_eq!(head(&response[..40]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }
}
