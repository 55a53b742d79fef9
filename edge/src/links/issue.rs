//! Issues certificates for development and tests: a keepers' authority, and edges' certificates of
//! it. In production they come from wherever the operator's others come from.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use standin_core::clock::Timestamp;
use uuid::Uuid;

use super::hello::EdgeName;

/// Clocks of edges may differ by this much and a fresh certificate is good at each.
const EARLIER: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest a certificate is made for.
pub const DAYS_MAX: u32 = 3_650;

/// A keepers' authority, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key: a secret.
    pub key: String,
    /// Until when it is good.
    pub not_after: Timestamp,
}

/// Why nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A time to live that no certificate is made for.
    #[error("{0} days: from 1 to {DAYS_MAX} are possible")]
    Days(u32),
    /// The authority's files hold no authority.
    #[error("this is no authority with its key: {0}")]
    Authority(rcgen::Error),
    /// The key is not that of the authority's certificate.
    #[error("the key is not that of the authority's certificate")]
    KeyOfAnother,
    /// Making it failed.
    #[error("cannot issue: {0}")]
    Issue(rcgen::Error),
}

// === impl Authority ===

impl Authority {
    /// Makes an authority.
    ///
    /// # Errors
    /// When `days` is out of bounds.
    pub fn new(days: u32, now: Timestamp) -> Result<Self, IssueError> {
        // A name of its own: who trusts another is told so, rather than of a bad signature.
        let common = format!("Standin keepers {}", Uuid::new_v4().simple());
        let (mut params, _) = lasting(days, now, &common)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(IssueError::Issue)?;
        let certificate = params.self_signed(&key).map_err(IssueError::Issue)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// An authority that was made before, from its PEM.
    ///
    /// # Errors
    /// When that is none.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key).map_err(IssueError::Authority)?;
        if key_of(certificate).as_deref() != Some(key.public_key_raw()) {
            return Err(IssueError::KeyOfAnother);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(IssueError::Authority)?;
        Ok(Self {
            issuer,
            certificate: certificate.to_owned(),
        })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, PEM: a secret.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues an edge's certificate, for both ends of links.
    ///
    /// # Errors
    /// When `days` is out of bounds.
    pub fn issue(&self, edge: &EdgeName, days: u32, now: Timestamp) -> Result<Issued, IssueError> {
        let common = format!("edge/{}/{}", edge.region, edge.node.0);
        let (mut params, not_after) = lasting(days, now, &common)?;
        let uri = edge.to_string().try_into().map_err(IssueError::Issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(IssueError::Issue)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(IssueError::Issue)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            not_after,
        })
    }
}

/// The public key in a certificate.
fn key_of(certificate: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    Some(parsed.public_key().subject_public_key.data.to_vec())
}

/// What is common to all: a name, and from when until when it is good.
fn lasting(
    days: u32,
    now: Timestamp,
    common: &str,
) -> Result<(CertificateParams, Timestamp), IssueError> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(IssueError::Days(days));
    }
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    let now_secs = u64::try_from(now.as_secs()).unwrap_or(0);
    let since_epoch = Duration::from_secs(now_secs);
    let until = since_epoch.saturating_add(DAY.saturating_mul(days));
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: Duration| epoch.saturating_add(time.try_into().unwrap_or_default());
    let mut params = CertificateParams::default();
    params.not_before = at(since_epoch.saturating_sub(EARLIER));
    params.not_after = at(until);
    params.distinguished_name = name;
    let not_after = Timestamp::from_millis(0).plus(until);
    Ok((params, not_after))
}
