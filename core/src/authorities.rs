//! Whom a server's certificate must be of, where the ledger or the trip cache is reached over TLS. Its
//! host's name is verified with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Authorities that servers' certificates are trusted by, ready for use.
#[derive(Clone)]
pub struct Authorities(Arc<ClientConfig>);

/// Why a file holds no authorities.
#[derive(Debug, thiserror::Error)]
#[error("{} holds no authority: {problem}", file.display())]
pub struct AuthoritiesError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
}

// === impl Authorities ===

impl Authorities {
    /// Reads the certificates of a PEM file; blocks.
    ///
    /// # Errors
    /// When it holds none that serves.
    pub fn read(file: &Path) -> Result<Self, AuthoritiesError> {
        let wrong = |problem: String| AuthoritiesError {
            file: file.to_owned(),
            problem,
        };
        let read = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in read {
            let added = roots.add(certificate);
            added.map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// What TLS libraries take.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorities(..)")
    }
}
