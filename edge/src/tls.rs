//! What every TLS end of an edge shares: reading PEM, who a certificate names, how long it is good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use standin_core::clock::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::watched::FileRead;

/// Left of a certificate's life when people are told; of a short life, its last fifth.
const ENDS_SOON_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Why files do not serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file} holds {problem}")]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate, key and authority do not fit each other, or it is not their time.
    #[error("{certificate} does not serve: {source}")]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate does not name whom it must.
    #[error("{certificate}: {problem}")]
    Name {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        problem: String,
    },
}

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not one readable certificate.
    #[error("no certificate that can be read")]
    Unreadable,
    /// It must have exactly one alternative name of kind URI.
    #[error("the certificate has {0} names of kind URI, it needs one")]
    Names(usize),
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From then.
    pub not_before: Timestamp,
    /// Until then.
    pub not_after: Timestamp,
}

// === impl Life ===

impl Life {
    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        let time = |secs: i64| Timestamp::from_millis(secs.saturating_mul(1_000));
        Some(Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// A word to people when little of it is left.
    pub fn ends_soon(&self, now: Timestamp) -> Option<String> {
        let life_ms = self.not_after.millis_since(self.not_before);
        let left_ms = self.not_after.millis_since(now);
        let soon_ms = life_ms.checked_div(5).unwrap_or(0).min(ENDS_SOON_MS);
        (left_ms < soon_ms).then(|| format!("this edge's certificate ends at {}", self.not_after))
    }
}

/// The contents of a file, or why there are none.
pub fn bytes_of(file: FileRead) -> Result<(PathBuf, Vec<u8>), TlsError> {
    let FileRead { path, bytes } = file;
    match bytes {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(TlsError::Read { file: path, source }),
    }
}

/// The certificates in a PEM file; one at least.
pub fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(content(file, "no certificate")),
        Err(error) => Err(content(file, format!("no certificate: {error}"))),
    }
}

/// The private key in a PEM file.
pub fn private_key(pem: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| content(file, format!("no private key: {error}")))
}

/// The authorities in a PEM file.
pub fn roots(pem: &[u8], file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, file)? {
        roots
            .add(certificate)
            .map_err(|error| content(file, error.to_string()))?;
    }
    Ok(roots)
}

/// The revocation lists in a PEM file; one at least.
pub fn revocation_lists(
    pem: &[u8],
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(content(file, "no revocation list")),
        Err(error) => Err(content(file, format!("no revocation list: {error}"))),
    }
}

/// Until when all of these lists are good; `None`: one of them does not say, or does not read.
pub fn lists_until(lists: &[CertificateRevocationListDer<'_>]) -> Option<Timestamp> {
    let until = |list: &CertificateRevocationListDer<'_>| {
        let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
        let secs = parsed.next_update()?.timestamp();
        Some(Timestamp::from_millis(secs.saturating_mul(1_000)))
    };
    let each: Option<Vec<_>> = lists.iter().map(until).collect();
    each?.into_iter().min()
}

/// Judges client certificates by these authorities. With `lists`, a certificate without a list of
/// its authority that is good today is refused.
pub fn client_verifier(
    roots: &Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> ClientCertVerifierBuilder {
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    if lists.is_empty() {
        return builder;
    }
    builder.with_crls(lists).enforce_revocation_expiration()
}

/// What is wrong with a file's contents.
pub fn content(file: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Content {
        file: file.to_owned(),
        problem: problem.into(),
    }
}

/// The one alternative name of kind URI that a certificate carries: whom it names.
///
/// # Errors
/// When there is not exactly one.
pub fn uri_of(certificate: &CertificateDer<'_>) -> Result<String, NameError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Unreadable)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| NameError::Unreadable)?;
    let uris: Vec<&str> = names
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        _ => Err(NameError::Names(uris.len())),
    }
}

/// The present, as the library has it.
pub fn unix_time(now: Timestamp) -> UnixTime {
    let secs = u64::try_from(now.as_secs()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}
