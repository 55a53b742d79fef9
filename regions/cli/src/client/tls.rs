//! TLS of the client: whom it trusts, and what it shows.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use standin_edge::tls::{certificates, private_key, roots};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Pool, Target};

/// Certificates for servers at https://.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// For https://: certificates (PEM) of the authority that the server's certificate is of.
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
        let Some(ca) = &self.ca else {
            bail!("{target} needs --ca, the authority that its certificate is of");
        };
        let shown = self.certificate.as_deref().zip(self.key.as_deref());
        let tls = ClientTls::read(ca, shown)?;
        Ok(Pool::over_tls(target.clone(), connections, tls))
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// Reads PEM files: the authority, and the certificate to show with its key.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn read(ca: &Path, shown: Option<(&Path, &Path)>) -> anyhow::Result<Self> {
        let roots = roots(&read(ca)?, ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(&read(certificate)?, certificate)?;
                builder
                    .with_client_auth_cert(chain, private_key(&read(key)?, key)?)
                    .with_context(|| format!("{} does not serve", certificate.display()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    pub(super) async fn connect(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(target.host().to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
