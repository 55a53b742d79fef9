//! What an edge is told at its start.
use standin_core::id::BankId;
use standin_core::money::Currency;
/// One bank, as its adapter needs to know it.
#[derive(Debug)]
pub struct BankConfig {
    /// Its name in paths.
    pub slug: BankId,
    /// What its amounts are in when it does not say.
    pub currency: Currency,
}
impl BankConfig {
    #[cfg(test)]
    pub(crate) fn for_tests(slug: &str, currency: Currency) -> Self {
        Self {
            slug: slug.parse().unwrap(),
            currency,
        }
    }
}
