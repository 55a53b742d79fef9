//! Issues certificates for development and tests: authorities, and certificates of them. In production
//! they come from wherever the operator's others come from.
//!
//! There are three authorities, and none is trusted where another is asked for: keepers', for links
//! between edges; banks', for banks and the listener they connect to; operators', for operators and
//! theirs.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use standin_core::clock::Timestamp;
use standin_core::id::BankId;
use uuid::Uuid;

use crate::admin::OPERATOR;
use crate::authenticate;
use crate::links::EdgeName;

/// Clocks of edges may differ by this much and a fresh certificate is good at each.
const EARLIER: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest a certificate is made for.
pub const DAYS_MAX: u32 = 3_650;

/// Whose certificates an authority signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Edges', for the links between them.
    Keepers,
    /// Banks', and those of the listener that they connect to.
    Banks,
    /// Operators', and those of their listener.
    Operators,
}

/// Who a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject<'a> {
    /// An edge, for both ends of links.
    Edge(&'a EdgeName),
    /// A bank that connects.
    Bank(&'a BankId),
    /// An operator who connects; letters, digits, `-`, `_`, `.` and `@`.
    Operator(&'a str),
    /// A listener, by the hosts (names or addresses) that clients know it by.
    Listener(&'a [String]),
}

/// An authority, with its key.
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
    /// An operator's name that cannot stand in a certificate.
    #[error("\"{0}\" is no operator's name: 1 to 64 letters, digits, '-', '_', '.' and '@'")]
    Operator(String),
    /// What is to be revoked is no certificate.
    #[error("this is no certificate")]
    NoCertificate,
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
    pub fn new(whose: Whose, days: u32, now: Timestamp) -> Result<Self, IssueError> {
        // A name of its own: who trusts another is told so, rather than of a bad signature.
        let common = format!("Standin {} {}", whose.as_str(), Uuid::new_v4().simple());
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

    /// Issues a certificate.
    ///
    /// # Errors
    /// When `days` is out of bounds, or the subject cannot stand in a certificate.
    pub fn issue(
        &self,
        subject: &Subject<'_>,
        days: u32,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let (mut params, not_after) = lasting(days, now, &subject.common()?)?;
        params.subject_alt_names = subject.names()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = subject.purposes();
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

    /// A list that revokes these certificates (PEM), good for `days`.
    ///
    /// # Errors
    /// When `days` is out of bounds, or one of them is no certificate.
    pub fn revoke(
        &self,
        certificates: &[&str],
        days: u32,
        now: Timestamp,
    ) -> Result<String, IssueError> {
        let (times, _) = lasting(days, now, "")?;
        let mut revoked_certs = Vec::new();
        for certificate in certificates {
            revoked_certs.push(RevokedCertParams {
                serial_number: serial_of(certificate).ok_or(IssueError::NoCertificate)?,
                revocation_time: times.not_before,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: times.not_before,
            next_update: times.not_after,
            crl_number: SerialNumber::from(now.as_millis().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).map_err(IssueError::Issue)?;
        signed.pem().map_err(IssueError::Issue)
    }
}

// === impl Whose ===

impl Whose {
    /// The word in names of files and authorities.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keepers => "keepers",
            Self::Banks => "banks",
            Self::Operators => "operators",
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    fn common(&self) -> Result<String, IssueError> {
        Ok(match self {
            Self::Edge(edge) => format!("edge/{}/{}", edge.region, edge.node.0),
            Self::Bank(bank) => format!("bank/{bank}"),
            Self::Operator(name) => {
                let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
                let good = (1..=64).contains(&name.len()) && name.bytes().all(usable);
                if !good {
                    return Err(IssueError::Operator((*name).to_owned()));
                }
                format!("operator/{name}")
            }
            Self::Listener(hosts) => hosts.first().cloned().unwrap_or_default(),
        })
    }

    /// The URI that its certificate carries; a listener's carries its hosts instead.
    pub fn uri(&self) -> Option<String> {
        match self {
            Self::Edge(edge) => Some(edge.to_string()),
            Self::Bank(bank) => Some(authenticate::certificate_name(bank)),
            Self::Operator(name) => Some(format!("{OPERATOR}{name}")),
            Self::Listener(_) => None,
        }
    }

    fn names(&self) -> Result<Vec<SanType>, IssueError> {
        let hosts = match self {
            Self::Listener(hosts) => *hosts,
            Self::Edge(_) | Self::Bank(_) | Self::Operator(_) => &[],
        };
        let hosts = hosts.iter().map(|host| match host.parse() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => host.as_str().try_into().map(SanType::DnsName),
        });
        let uri = self.uri().map(|uri| uri.try_into().map(SanType::URI));
        let names: Result<Vec<_>, _> = uri.into_iter().chain(hosts).collect();
        names.map_err(IssueError::Issue)
    }

    fn purposes(&self) -> Vec<ExtendedKeyUsagePurpose> {
        let (server, client) = (
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        match self {
            Self::Edge(_) => vec![server, client],
            Self::Bank(_) | Self::Operator(_) => vec![client],
            Self::Listener(_) => vec![server],
        }
    }
}

fn serial_of(certificate: &str) -> Option<SerialNumber> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let parsed = pem.parse_x509().ok()?;
    Some(SerialNumber::from_slice(parsed.raw_serial()))
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
