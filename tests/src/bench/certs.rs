//! Certificates of a run: the listener's, a bank's, and their authority's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, ServerConfig};
use standin_cli::client::ClientTls;
use standin_core::clock::{Clock, SystemClock};
use standin_edge::issue::{Authority, Issued, Subject, Whose};
use standin_edge::tls::{certificates, private_key, roots};

use super::work::BANK;

const DAYS: u32 = 2;
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// A folder of PEM files, made for one run.
#[derive(Clone, Debug)]
pub struct Certificates(PathBuf);

// === impl Certificates ===

impl Certificates {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn make(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let now = SystemClock.now();
        let authority = Authority::new(Whose::Banks, DAYS, now)?;
        let made = Self(folder);
        std::fs::write(made.authority(), authority.certificate())?;
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        made.write(
            "door",
            &authority.issue(&Subject::Listener(&hosts), DAYS, now)?,
        )?;
        let bank = BANK.parse()?;
        made.write("bank", &authority.issue(&Subject::Bank(&bank), DAYS, now)?)?;
        Ok(made)
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.0.join("banks-ca.pem")
    }

    /// Certificate and key of the listener.
    pub fn door(&self) -> (PathBuf, PathBuf) {
        self.pair("door")
    }

    /// TLS of the bank, for the client of the `standin` command.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn bank(&self) -> anyhow::Result<ClientTls> {
        let (certificate, key) = self.pair("bank");
        ClientTls::read(&self.authority(), Some((&certificate, &key)))
    }

    /// TLS of a client that shows no certificate, or the bank's; for HTTP/2 or HTTP/1.1.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn client(&self, is_bank: bool, over_http2: bool) -> anyhow::Result<Arc<ClientConfig>> {
        let ca = self.authority();
        let roots = roots(&std::fs::read(&ca)?, &ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = if is_bank {
            let (certificate, key) = self.pair("bank");
            let chain = certificates(&std::fs::read(&certificate)?, &certificate)?;
            let key = private_key(&std::fs::read(&key)?, &key)?;
            builder.with_client_auth_cert(chain, key)?
        } else {
            builder.with_no_client_auth()
        };
        let spoken = if over_http2 { HTTP2 } else { HTTP1 };
        config.alpn_protocols = vec![spoken.to_vec()];
        Ok(Arc::new(config))
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let at = |end: &str| self.0.join(format!("{name}.{end}"));
        (at("pem"), at("key"))
    }

    fn write(&self, name: &str, issued: &Issued) -> anyhow::Result<()> {
        let (certificate, key) = self.pair(name);
        std::fs::write(&certificate, &issued.certificate)?;
        std::fs::write(&key, &issued.key)?;
        Ok(())
    }
}

/// TLS of a bare server: as the edge's, for anybody.
///
/// # Errors
/// When a file does not serve.
pub fn server(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&std::fs::read(certificate)?, certificate)?;
    let key = private_key(&std::fs::read(key)?, key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and its key")?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}
