//! Secrets on the command line: given, from a file, or from the environment; never shown.

use std::path::PathBuf;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use standin_core::identity::DeploymentKey;
use standin_core::signature::{Scheme, Secret};

/// The bank's secret of `standin serve --example`: public, for trying things out on loopback.
pub const EXAMPLE_BANK_SECRET: &str = "whsec_c3RhbmRpbi1leGFtcGxlLWJhbmstc2VjcmV0LTAwMDE=";
/// The platform's secret of `standin serve --example`: public too.
pub const EXAMPLE_PLATFORM_SECRET: &str = "whsec_c3RhbmRpbi1leGFtcGxlLXBsYXRmb3JtLXNlY3JldC0x";

/// A shared secret.
#[derive(Clone, clap::Args)]
pub struct SecretArgs {
    /// The secret, `whsec_…` (or as --signature has it). Others on this machine may see a command line: prefer
    /// --secret-file, or STANDIN_BANK_SECRET (trips: STANDIN_PLATFORM_SECRET).
    #[arg(long, value_name = "SECRET", conflicts_with = "secret_file")]
    secret: Option<String>,
    /// A file with the secret.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// A fresh secret.
pub(crate) fn fresh() -> String {
    format!("whsec_{}", fresh_key())
}

/// 32 fresh bytes in base64. They come from two random UUIDs: 244 random bits.
pub(crate) fn fresh_key() -> String {
    let mut bytes = uuid::Uuid::new_v4().as_bytes().to_vec();
    bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    STANDARD.encode(bytes)
}

/// A deployment key as an edge reads it: 16 bytes or more in base64.
pub(crate) fn deployment_key(text: &str) -> Option<DeploymentKey> {
    let bytes = STANDARD.decode(text.trim()).ok();
    bytes.and_then(DeploymentKey::new)
}

// === impl SecretArgs ===

impl SecretArgs {
    /// The bank's secret, else that of the variable STANDIN_BANK_SECRET.
    ///
    /// # Errors
    /// When there is none, or it is no secret.
    pub fn bank(&self, scheme: Scheme) -> anyhow::Result<Secret> {
        self.find("STANDIN_BANK_SECRET", scheme)
    }

    /// The platform's secret, else that of the variable STANDIN_PLATFORM_SECRET.
    ///
    /// # Errors
    /// As [`SecretArgs::bank`].
    pub fn platform(&self) -> anyhow::Result<Secret> {
        self.find("STANDIN_PLATFORM_SECRET", Scheme::StandardWebhooks)
    }

    fn find(&self, variable: &str, scheme: Scheme) -> anyhow::Result<Secret> {
        let (text, origin) = if let Some(secret) = &self.secret {
            (secret.clone(), "--secret".to_owned())
        } else if let Some(file) = &self.secret_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            (text, file.display().to_string())
        } else if let Ok(text) = std::env::var(variable) {
            (text, variable.to_owned())
        } else {
            bail!(
                "no secret: give --secret, --secret-file or {variable} \
                 (`standin serve --example` prints the ones to try with)"
            );
        };
        let secret = scheme.secret(text.trim());
        secret.with_context(|| format!("{origin} holds no secret"))
    }
}

impl std::fmt::Debug for SecretArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretArgs(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_secrets_are_secrets() {
        assert!(EXAMPLE_BANK_SECRET.parse::<Secret>().is_ok());
        assert!(EXAMPLE_PLATFORM_SECRET.parse::<Secret>().is_ok());
    }
}
