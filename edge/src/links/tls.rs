//! Mutual TLS from three files: TLS 1.3 only, both ends show a certificate of the keepers' own
//! authority, and the name in it says which edge they are.
//!
//! Sessions are never resumed: each connection is judged by the certificates of its own day.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use standin_core::clock::Timestamp;

use super::hello::{EdgeName, EdgeNameError};
use crate::tls::{
    self, Life, TlsError, bytes_of, certificates, client_verifier, content, private_key, roots,
    unix_time, uri_of,
};
use crate::watched::{FileRead, Recipe};

/// What both ends must speak.
pub(super) const PROTOCOL: &[u8] = b"standin-keeper/1";

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

/// Why a certificate names no edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It names nobody.
    #[error(transparent)]
    Nobody(#[from] tls::NameError),
    /// Its name is not an edge's.
    #[error("the certificate's name is not an edge's: {0}")]
    Name(#[from] EdgeNameError),
}

/// Both ends of TLS, as one set of files says.
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) life: Life,
}

/// How both ends are made of the files of one edge.
pub(super) struct Keeper {
    pub(super) files: TlsFiles,
    pub(super) this: EdgeName,
}

/// Accepts a server's certificate by who signed it. Whose it is, is read from it after the
/// handshake: an edge is named by a URI, which TLS has no name for.
#[derive(Debug)]
struct SignedByOurs {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

// === impl Keeper ===

impl Recipe for Keeper {
    type Made = Tls;
    type Error = TlsError;

    fn files(&self) -> Vec<PathBuf> {
        let TlsFiles {
            ca,
            certificate,
            key,
        } = self.files.clone();
        vec![ca, certificate, key]
    }

    /// Makes both ends, and holds them to what a peer would.
    ///
    /// # Errors
    /// When this edge's peers would not accept it at `now`.
    fn make(
        &self,
        files: Vec<FileRead>,
        _in_use: Option<&Tls>,
        now: Timestamp,
    ) -> Result<Tls, TlsError> {
        let read: Result<Vec<_>, _> = files.into_iter().map(bytes_of).collect();
        let read = read?;
        let [(ca_file, ca), (file, certificate), (key_file, key)] = read.as_slice() else {
            return Err(content(&self.files.ca, "no certificate"));
        };
        let chain = certificates(certificate, file)?;
        let key = private_key(key, key_file)?;
        let roots = Arc::new(roots(ca, ca_file)?);
        let (own, between) = chain
            .split_first()
            .ok_or_else(|| content(file, "no certificate"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = client_verifier(&roots, Vec::new(), &provider)
            .build()
            .map_err(|error| content(ca_file, error.to_string()))?;
        let servers = Arc::new(SignedByOurs {
            roots,
            provider: Arc::clone(&provider),
        });
        let unfit = |source: rustls::Error| TlsError::Unfit {
            certificate: file.clone(),
            source,
        };
        let today = unix_time(now);
        clients
            .verify_client_cert(own, between, today)
            .map_err(unfit)?;
        servers.verify(own, between, today).map_err(unfit)?;
        let wrong = |problem: String| TlsError::Name {
            certificate: file.clone(),
            problem,
        };
        let named = name_of(own).map_err(|error| wrong(error.to_string()))?;
        if named != self.this {
            return Err(wrong(format!("it is of {named}, this is {}", self.this)));
        }
        let life = Life::of(own).ok_or_else(|| wrong(tls::NameError::Unreadable.to_string()))?;
        Ok(Tls {
            server: server(&provider, clients, chain.clone(), key.clone_key()).map_err(unfit)?,
            client: client(&provider, servers, chain, key).map_err(unfit)?,
            life,
        })
    }

    fn warning(&self, made: &Tls, now: Timestamp) -> Option<String> {
        made.life.ends_soon(now)
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

/// Which edge a certificate is of.
///
/// # Errors
/// When it does not name exactly one.
pub(super) fn name_of(certificate: &CertificateDer<'_>) -> Result<EdgeName, NameError> {
    Ok(uri_of(certificate)?.parse::<EdgeName>()?)
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
