//! Sockets under links: their options, and TLS or the loopback rule on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::hello::EdgeName;
use super::tls::{NameError, PROTOCOL, Tls, name_of};

/// A silent connection is asked whether it is there after this long, then each second.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);

/// What links read from and write to.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and what the other end's certificate names; `None` without TLS.
pub(super) type Secured = (Box<dyn Stream>, Option<EdgeName>);

/// Why a connection is not trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureError {
    #[error("{0} is not on loopback, and links without TLS are for loopback only")]
    PlainOffLoopback(SocketAddr),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the other end does not speak the keepers' protocol")]
    Protocol,
    #[error("the other end showed no certificate")]
    NoCertificate,
    #[error("the other end's certificate: {0}")]
    Name(#[from] NameError),
}

/// Whether both ends of a connection are on this machine.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Small frames leave at once; an end that is gone is noticed within `gone_after`.
pub(super) fn prepare(stream: &TcpStream, gone_after: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    // Bytes that are never acknowledged: keepalive alone would not notice.
    socket.set_tcp_user_timeout(Some(gone_after))
}

/// The dialling end of TLS, or the loopback rule.
pub(super) async fn secure_dialled(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
) -> Result<Secured, SecureError> {
    let Some(tls) = tls else {
        return plain(stream);
    };
    let connector = TlsConnector::from(Arc::clone(&tls.client));
    // Not looked at: edges are told by the URI in their certificates.
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let stream = connector.connect(name, stream).await?;
    let (_, session) = stream.get_ref();
    let named = peer(session.alpn_protocol(), session.peer_certificates())?;
    Ok((Box::new(stream), Some(named)))
}

/// The accepting end of TLS, or the loopback rule.
pub(super) async fn secure_accepted(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
) -> Result<Secured, SecureError> {
    let Some(tls) = tls else {
        return plain(stream);
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
    let stream = acceptor.accept(stream).await?;
    let (_, session) = stream.get_ref();
    let named = peer(session.alpn_protocol(), session.peer_certificates())?;
    Ok((Box::new(stream), Some(named)))
}

fn plain(stream: TcpStream) -> Result<Secured, SecureError> {
    for end in [stream.peer_addr()?, stream.local_addr()?] {
        if !is_loopback(end) {
            return Err(SecureError::PlainOffLoopback(end));
        }
    }
    Ok((Box::new(stream), None))
}

fn peer(
    protocol: Option<&[u8]>,
    certificates: Option<&[CertificateDer<'_>]>,
) -> Result<EdgeName, SecureError> {
    if protocol != Some(PROTOCOL) {
        return Err(SecureError::Protocol);
    }
    let own = certificates.and_then(<[_]>::first);
    Ok(name_of(own.ok_or(SecureError::NoCertificate)?)?)
}
