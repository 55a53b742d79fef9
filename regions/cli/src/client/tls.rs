//! TLS of the client: whom it trusts, and what it shows.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use standin_edge::tls::{certificates, private_key, roots};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::line::{LineTarget, Lines};
use super::{Pool, Target};

/// Certificates for servers at https:// and iso8583s://.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// For https:// and iso8583s://: certificates (PEM) of the authority that the server's certificate is of.
    #[arg(long, global = true, value_name = "FILE", env = "STANDIN_CA")]
    ca: Option<PathBuf>,
    /// The certificate (PEM) to show.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STANDIN_CERTIFICATE",
        requires = "key"
    )]
    certificate: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STANDIN_KEY",
        requires = "certificate"
    )]
    key: Option<PathBuf>,
}

/// TLS, ready for use.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

// === impl TlsArgs ===

impl TlsArgs {
    /// A pool of connections to a server, with TLS if it is at https://.
    ///
    /// # Errors
    /// When a file does not serve, or the authority is not given.
    pub fn pool(&self, target: &Target, connections: usize) -> anyhow::Result<Pool> {
        if !target.is_secure() {
            return Ok(Pool::new(target.clone(), connections));
        }
        let tls = ClientTls::read(self.ca(target)?, self.shown())?;
        Ok(Pool::over_tls(target.clone(), connections, tls))
    }

    /// Connections for messages, with TLS if they are spoken at iso8583s://.
    ///
    /// # Errors
    /// As [`TlsArgs::pool`].
    pub fn lines(&self, target: &LineTarget) -> anyhow::Result<Lines> {
        if !target.is_secure() {
            return Ok(Lines::new(target.clone()));
        }
        let tls = ClientTls::for_lines(self.ca(target)?, self.shown())?;
        Ok(Lines::over_tls(target.clone(), tls))
    }

    /// The same, with no certificate to show.
    #[must_use]
    pub fn of_nobody(&self) -> Self {
        Self {
            ca: self.ca.clone(),
            certificate: None,
            key: None,
        }
    }

    fn ca(&self, target: &impl fmt::Display) -> anyhow::Result<&Path> {
        let ca = self.ca.as_deref();
        ca.with_context(|| format!("{target} needs --ca, the authority that its certificate is of"))
    }

    fn shown(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// For HTTP. Reads PEM files: the authority, and the certificate to show with its key.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn read(ca: &Path, shown: Option<(&Path, &Path)>) -> anyhow::Result<Self> {
        let mut config = made(ca, shown)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The same for messages, whose protocol has no name in ALPN.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn for_lines(ca: &Path, shown: Option<(&Path, &Path)>) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(made(ca, shown)?)))
    }

    /// `host` is what the server's certificate has to name.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

fn made(ca: &Path, shown: Option<(&Path, &Path)>) -> anyhow::Result<ClientConfig> {
    let roots = roots(&read(ca)?, ca)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match shown {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(&read(certificate)?, certificate)?;
            builder
                .with_client_auth_cert(chain, private_key(&read(key)?, key)?)
                .with_context(|| format!("{} does not serve", certificate.display()))
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
