//! TLS at a listener: whom clients see, and which clients are let in.
//!
//! Sessions may be resumed, but not beyond the client certificate's own time, and not over a change of
//! the files: what was revoked is refused from then on.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use standin_core::clock::{Clock, Timestamp};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::tls::{
    Life, NameError, TlsError, bytes_of, certificates, client_verifier, content, lists_until,
    private_key, revocation_lists, roots, uri_of,
};
use crate::watched::{FileRead, Recipe, Reloaded, Watched};

/// HTTP/2 over TLS, as ALPN names it.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// Left of a revocation list's time when people are told.
const LISTS_END_SOON_MS: u64 = 6 * 60 * 60 * 1_000;

/// Where a listener's certificates are, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The certificate that clients see, then those between it and their authority.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Authorities of clients' certificates; `None`: clients show none.
    pub clients_ca: Option<PathBuf>,
    /// Revocation lists of those authorities. With one, every client's authority needs one that is
    /// good today.
    pub clients_crl: Option<PathBuf>,
    /// Whether a client without a certificate is let in.
    pub clients: Clients,
    /// Whether TLS 1.2 will do.
    pub tls12: bool,
}

/// Which clients are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Any; a certificate that is shown must be good.
    Any,
    /// Only those that show a good certificate.
    Certified,
}

/// TLS of one listener.
pub struct ServerTls {
    watched: Watched<ServerTlsFiles>,
    clock: Arc<dyn Clock>,
}

/// One set of files, ready for use.
pub struct Made {
    config: Arc<ServerConfig>,
    life: Life,
    /// Until when every revocation list is good; `None`: there is none.
    lists_until: Option<Timestamp>,
}

/// A connection whose client has said its first word.
pub(super) type Hello = StartHandshake<TcpStream>;

/// A connection after its handshake.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<TcpStream>,
    /// Whom the client's certificate names.
    pub(super) peer_name: Option<Arc<str>>,
    pub(super) is_http2: bool,
}

/// Why a connection is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcceptError {
    /// The handshake failed.
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
    /// The client's certificate names nobody.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The session is resumed, and its certificate has ended since.
    #[error("the certificate of a resumed session has ended")]
    Ended,
}

// === impl ServerTlsFiles ===

impl Recipe for ServerTlsFiles {
    type Made = Made;
    type Error = TlsError;

    fn files(&self) -> Vec<PathBuf> {
        let always = [self.certificate.clone(), self.key.clone()];
        let more = [self.clients_ca.clone(), self.clients_crl.clone()];
        always
            .into_iter()
            .chain(more.into_iter().flatten())
            .collect()
    }

    fn make(
        &self,
        files: Vec<FileRead>,
        _in_use: Option<&Made>,
        now: Timestamp,
    ) -> Result<Made, TlsError> {
        let mut files = files.into_iter().map(bytes_of);
        let mut next = || {
            let missing = || Err(content(&self.certificate, "no certificate"));
            files.next().unwrap_or_else(missing)
        };
        let (file, certificate) = next()?;
        let (key_file, key) = next()?;
        let chain = certificates(&certificate, &file)?;
        let key = private_key(&key, &key_file)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut good_until = None;
        let clients = match &self.clients_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(_) => {
                let (ca_file, ca) = next()?;
                let lists = match &self.clients_crl {
                    None => Vec::new(),
                    Some(_) => {
                        let (crl_file, crl) = next()?;
                        let lists = revocation_lists(&crl, &crl_file)?;
                        let until = lists_until(&lists);
                        if until.is_none_or(|until| until <= now) {
                            // On it nobody would be let in.
                            return Err(content(&crl_file, "a revocation list that has ended"));
                        }
                        good_until = until;
                        lists
                    }
                };
                let roots = Arc::new(roots(&ca, &ca_file)?);
                let mut builder = client_verifier(&roots, lists, &provider);
                if self.clients == Clients::Any {
                    builder = builder.allow_unauthenticated();
                }
                let built = builder.build();
                built.map_err(|error| content(&ca_file, error.to_string()))?
            }
        };
        let life = chain.first().and_then(Life::of);
        let life = life.ok_or_else(|| content(&file, "no certificate that can be read"))?;
        if now < life.not_before || life.not_after <= now {
            let Life {
                not_before,
                not_after,
            } = life;
            let times = format!("a certificate that is good from {not_before} until {not_after}");
            return Err(content(&file, times));
        }
        let unfit = |source: rustls::Error| TlsError::Unfit {
            certificate: file.clone(),
            source,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions())
            .map_err(unfit)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Tickets: what a client can resume costs no memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(unfit)?;
        Ok(Made {
            config: Arc::new(config),
            life,
            lists_until: good_until,
        })
    }

    fn warning(&self, made: &Made, now: Timestamp) -> Option<String> {
        let lists = made.lists_until.and_then(|until| {
            let left_ms = until.millis_since(now);
            (left_ms < LISTS_END_SOON_MS)
                .then(|| format!("a revocation list ends at {until}, and then nobody is let in"))
        });
        lists.or_else(|| made.life.ends_soon(now))
    }
}

impl ServerTlsFiles {
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];
        if self.tls12 { &BOTH } else { &NEWEST }
    }
}

// === impl ServerTls ===

impl ServerTls {
    /// Takes the files into use.
    ///
    /// # Errors
    /// When they do not serve.
    pub async fn open(files: ServerTlsFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let watched = Watched::open(files, clock.now()).await?;
        Ok(Self { watched, clock })
    }

    /// Looks at the files; takes what it has seen twice.
    ///
    /// # Errors
    /// When they do not serve; what was in use still is.
    pub async fn look(&self) -> Result<Reloaded, TlsError> {
        self.told(self.watched.look(self.clock.now()).await)
    }

    /// Takes the files as they are now.
    ///
    /// # Errors
    /// As [`ServerTls::look`].
    pub async fn reload(&self) -> Result<Reloaded, TlsError> {
        self.told(self.watched.reload(self.clock.now()).await)
    }

    fn told(&self, reloaded: Result<Reloaded, TlsError>) -> Result<Reloaded, TlsError> {
        if matches!(reloaded, Ok(Reloaded::Changed)) {
            let not_after = self.not_after();
            tracing::info!(%not_after, "new connections get a new certificate");
        }
        reloaded
    }

    /// What people should know of the certificates.
    pub fn problem(&self) -> Option<String> {
        self.watched.problem(self.clock.now())
    }

    /// Until when the certificate is good.
    pub fn not_after(&self) -> Timestamp {
        self.watched.current().life.not_after
    }

    /// Times that other files were taken into use, since the start.
    pub fn reloads(&self) -> u64 {
        self.watched.reloads()
    }

    /// Waits for the client's first word.
    pub(super) async fn hello(&self, stream: TcpStream) -> Result<Hello, AcceptError> {
        Ok(LazyConfigAcceptor::new(Acceptor::default(), stream).await?)
    }

    /// Shakes hands.
    pub(super) async fn accept(&self, hello: Hello) -> Result<Accepted, AcceptError> {
        let config = Arc::clone(&self.watched.current().config);
        let stream = hello.into_stream(config).await?;
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(HTTP2);
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let peer_name = match shown {
            None => None,
            Some(certificate) => Some(self.name_of(certificate)?),
        };
        Ok(Accepted {
            peer_name,
            is_http2,
            stream,
        })
    }

    fn name_of(&self, certificate: &CertificateDer<'_>) -> Result<Arc<str>, AcceptError> {
        let life = Life::of(certificate).ok_or(NameError::Unreadable)?;
        if life.not_after <= self.clock.now() {
            return Err(AcceptError::Ended);
        }
        Ok(uri_of(certificate)?.into())
    }
}
