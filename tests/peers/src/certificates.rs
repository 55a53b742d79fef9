//! Certificates for one run: of an authority of etcd's, and of one of ours, whose certificates name
//! edges and no hosts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use standin_core::clock::{Clock, SystemClock};
use standin_edge::links::EdgeName;
use standin_edge::issue::{Authority, Subject, Whose};
use standin_wal::NodeId;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// For three keepers, as `standin certs` makes them: `ca.pem`, `keeper-N.pem`, `keeper-N.key`.
pub fn for_keepers(folder: &Path, region: &str) -> anyhow::Result<PathBuf> {
    let folder = folder.join("certificates");
    std::fs::create_dir_all(&folder)?;
    let now = SystemClock.now();
    let authority = Authority::new(Whose::Keepers, 1, now)?;
    std::fs::write(folder.join("ca.pem"), authority.certificate())?;
    for node in 1..=3 {
        let edge = EdgeName {
            region: region.to_owned(),
            node: NodeId(node),
        };
        let issued = authority.issue(&Subject::Edge(&edge), 1, now)?;
        std::fs::write(
            folder.join(format!("keeper-{node}.pem")),
            issued.certificate,
        )?;
        let key = folder.join(format!("keeper-{node}.key"));
        std::fs::write(&key, issued.key)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(folder)
}

/// For etcd: `ca.pem`, and `cert.pem` and `key.pem` for loopback, in a folder below this one.
pub fn for_etcd(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join("certificates");
    std::fs::create_dir_all(&folder)?;
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.pem"), authority_certificate.pem())?;
    std::fs::write(folder.join("cert.pem"), certificate.pem())?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(folder)
}
