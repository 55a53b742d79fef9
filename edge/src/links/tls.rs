//! Mutual TLS from three files: TLS 1.3 only, both ends show a certificate of the keepers' own
//! authority, and the name in it says which edge they are.
//!
//! Sessions are never resumed: each connection is judged by the certificates of its own day.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use sha2::{Digest, Sha256};
use standin_core::clock::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::hello::{EdgeName, EdgeNameError};

/// What both ends must speak.
pub(super) const PROTOCOL: &[u8] = b"standin-keeper/1";
/// Files larger than this are no certificates of ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where an edge's certificates are, PEM. `standin certs` makes a set for development.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that peers are trusted by; one, or two while one takes the
    /// other's place.
    pub ca: PathBuf,
    /// This edge's certificate, then those between it and the authority.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
}

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
    /// The certificate does not say which edge this is.
    #[error("{certificate}: {problem}")]
    Name {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        problem: NameError,
    },
    /// The certificate is of another edge.
    #[error("{certificate} is of {named}, this is {this}")]
    Another {
        /// The certificate's file.
        certificate: PathBuf,
        /// Whose it is.
        named: EdgeName,
        /// Who this is.
        this: EdgeName,
    },
}

/// Why a certificate names no edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not one readable certificate.
    #[error("no certificate that can be read")]
    Unreadable,
    /// It must have exactly one alternative name of kind URI.
    #[error("the certificate has {0} names of kind URI, it needs one")]
    Names(usize),
    /// That name is not an edge's.
    #[error("the certificate's name is not an edge's: {0}")]
    Name(#[from] EdgeNameError),
}

/// Both ends of TLS, as one set of files says.
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Of all that was read, to notice change.
    pub(super) digest: [u8; 32],
}

/// The bytes of the files at one moment.
pub(super) struct Read {
    files: TlsFiles,
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Accepts a server's certificate by who signed it. Whose it is, is read from it after the
/// handshake: an edge is named by a URI, which TLS has no name for.
#[derive(Debug)]
struct SignedByOurs {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

// === impl Read ===

impl Read {
    /// Reads the files; blocks.
    pub(super) fn of(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            ca: read(&files.ca)?,
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            files: files.clone(),
        })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in [&self.ca, &self.certificate, &self.key] {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }

    /// Makes both ends, and holds them to what a peer would.
    ///
    /// # Errors
    /// When this edge's peers would not accept it at `now`.
    pub(super) fn build(self, this: &EdgeName, now: Timestamp) -> Result<Tls, TlsError> {
        let digest = self.digest();
        let Self {
            files,
            ca,
            certificate,
            key,
        } = self;
        let unfit = |source: rustls::Error| TlsError::Unfit {
            certificate: files.certificate.clone(),
            source,
        };
        let chain = certificates(&certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| content(&files.key, format!("no private key: {error}")))?;
        let roots = Arc::new(roots(&ca, &files.ca)?);
        let (own, between) = chain
            .split_first()
            .ok_or_else(|| content(&files.certificate, "no certificate".to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| content(&files.ca, error.to_string()))?;
        let servers = Arc::new(SignedByOurs {
            roots,
            provider: Arc::clone(&provider),
        });
        let today = unix_time(now);
        clients
            .verify_client_cert(own, between, today)
            .map_err(unfit)?;
        servers.verify(own, between, today).map_err(unfit)?;
        let name = |problem| TlsError::Name {
            certificate: files.certificate.clone(),
            problem,
        };
        let named = name_of(own).map_err(name)?;
        if named != *this {
            return Err(TlsError::Another {
                certificate: files.certificate.clone(),
                named,
                this: this.clone(),
            });
        }
        let (not_before, not_after) = validity(own).ok_or_else(|| name(NameError::Unreadable))?;
        Ok(Tls {
            server: server(&provider, clients, chain.clone(), key.clone_key()).map_err(unfit)?,
            client: client(&provider, servers, chain, key).map_err(unfit)?,
            not_before,
            not_after,
            digest,
        })
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    provider: &Arc<CryptoProvider>,
    servers: Arc<SignedByOurs>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let mut read = || {
        let file = std::fs::File::open(file)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)
    };
    let done = read();
    done.map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })?;
    Ok(bytes)
}

fn content(file: &Path, problem: String) -> TlsError {
    TlsError::Content {
        file: file.to_owned(),
        problem,
    }
}

fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(content(file, "no certificate".to_owned())),
        Err(error) => Err(content(file, format!("no certificate: {error}"))),
    }
}

fn roots(pem: &[u8], file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, file)? {
        roots
            .add(certificate)
            .map_err(|error| content(file, error.to_string()))?;
    }
    Ok(roots)
}

/// Which edge a certificate is of.
///
/// # Errors
/// When it does not name exactly one.
pub(super) fn name_of(certificate: &CertificateDer<'_>) -> Result<EdgeName, NameError> {
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
        [uri] => Ok(uri.parse()?),
        _ => Err(NameError::Names(uris.len())),
    }
}

/// From when until when a certificate is good.
fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let time = |secs: i64| Timestamp::from_millis(secs.saturating_mul(1_000));
    Some((
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    ))
}

fn unix_time(now: Timestamp) -> UnixTime {
    let secs = u64::try_from(now.as_secs()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

// === impl SignedByOurs ===

impl SignedByOurs {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)
    }
}

impl ServerCertVerifier for SignedByOurs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
