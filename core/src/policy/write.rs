//! A policy as text again. What a person wrote beside the values is not kept; a test reads every
//! policy back as what it was.

use sha2::{Digest, Sha256};

use super::{Decay, MissingPosition, Policy, RuleKey, Threshold};
use crate::decide::Tally;
use crate::money::{Currency, Money};

// === impl Policy ===

impl Policy {
    /// The TOML that [`Policy::parse`] reads as this policy.
    pub fn to_toml(&self) -> String {
        let out = Out {
            currency: self.currency,
        };
        let mut text = format!(
            "version = {}\ncurrency = \"{}\"\n\n[primary]\ntrip_age_max_ms = {}\n",
            self.version, self.currency, self.primary.trip_age_max_ms
        );
        let default = self.thresholds.default_threshold();
        add(
            &mut text,
            format_args!("\n[thresholds.default]\n{}", out.threshold(default)),
        );
        for (key, threshold) in self.thresholds.rules() {
            add(
                &mut text,
                format_args!(
                    "\n[[thresholds.rule]]\n{}{}",
                    rule_key(&key),
                    out.threshold(threshold)
                ),
            );
        }
        out.stand_in(&mut text, self);
        out.isolated(&mut text, self);
        let missing = match self.geofence.missing {
            MissingPosition::Flag => "flag",
            MissingPosition::Decline => "decline",
        };
        add(
            &mut text,
            format_args!(
                "\n[geofence]\nradius_m = {}\nposition_age_max_ms = {}\nfuture_skew_max_ms = {}\n\
                 missing = \"{missing}\"\n\n[velocity]\nwindow_ms = {}\napprovals_max = {}\n\n\
                 [double_swipe]\nwindow_ms = {}\n",
                self.geofence.radius_m,
                self.geofence.position_age_max_ms,
                self.geofence.future_skew_max_ms,
                self.velocity.window_ms,
                self.velocity.approvals_max,
                self.double_swipe.window_ms,
            ),
        );
        out.changes(&mut text, self);
        text
    }

    /// Sixteen hexadecimal digits that are others for every other policy, whatever its file looks like.
    pub fn fingerprint(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.to_toml()).into();
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Writes amounts in the policy's currency.
struct Out {
    currency: Currency,
}

// === impl Out ===

impl Out {
    fn money(&self, minor: i64) -> String {
        Money::from_minor(minor, self.currency).to_decimal()
    }

    fn threshold(&self, threshold: Threshold) -> String {
        format!(
            "percent = \"{}\"\nabsolute = \"{}\"\nceiling = \"{}\"\n",
            percent(threshold.percent_bp),
            self.money(threshold.absolute),
            self.money(threshold.ceiling)
        )
    }

    fn tally(&self, tally: Tally) -> String {
        let amount = self.money(tally.amount);
        format!("{{ amount = \"{amount}\", count = {} }}", tally.count)
    }

    fn stand_in(&self, text: &mut String, policy: &Policy) {
        let stand_in = &policy.stand_in;
        add(
            text,
            format_args!(
                "\n[stand_in]\ntrip_age_max_ms = {}\n{}transaction = \"{}\"\n",
                stand_in.trip_age_max_ms,
                self.threshold(stand_in.threshold),
                self.money(stand_in.transaction)
            ),
        );
        for (party, outage, hour) in [
            ("shopper", stand_in.shopper_outage, stand_in.shopper_hour),
            ("bank", stand_in.bank_outage, stand_in.bank_hour),
        ] {
            let (outage, hour) = (self.tally(outage), self.tally(hour));
            add(
                text,
                format_args!("\n[stand_in.{party}]\noutage = {outage}\nhour = {hour}\n"),
            );
        }
        decay(text, "stand_in", &stand_in.decay);
    }

    fn isolated(&self, text: &mut String, policy: &Policy) {
        let isolated = &policy.isolated;
        add(
            text,
            format_args!(
                "\n[isolated]\nfloor = \"{}\"\nwindow_ms = {}\nreserve = {}\n",
                self.money(isolated.floor),
                isolated.window_ms,
                self.tally(isolated.reserve)
            ),
        );
        decay(text, "isolated", &isolated.decay);
    }

    fn changes(&self, text: &mut String, policy: &Policy) {
        let promotion = &policy.promotion;
        add(
            text,
            format_args!(
                "\n[promotion]\nmax_step_percent = \"{}\"\nmax_step_absolute = \"{}\"\n\
                 max_step_ceiling = \"{}\"\nmin_shadow = {}\n",
                percent(promotion.max_step_percent_bp),
                self.money(promotion.max_step_absolute),
                self.money(promotion.max_step_ceiling),
                promotion.min_shadow,
            ),
        );
        if let Some(change) = &policy.change {
            add(
                text,
                format_args!(
                    "\n[change]\noperator = {}\nreason = {}\nat = \"{}\"\nreplaces = {}\n",
                    quoted(&change.operator),
                    quoted(&change.reason),
                    change.at,
                    change.replaces
                ),
            );
        }
    }
}

fn rule_key(key: &RuleKey) -> String {
    let mut text = String::new();
    if let Some(store) = key.store {
        add(&mut text, format_args!("store = {store}\n"));
    }
    if let Some(category) = &key.category {
        add(&mut text, format_args!("category = {}\n", quoted(category)));
    }
    text
}

fn decay(text: &mut String, table: &str, decay: &Decay) {
    for step in &decay.steps {
        add(
            text,
            format_args!(
                "\n[[{table}.decay]]\nuntil_ms = {}\npercent = \"{}\"\n",
                step.until_ms,
                percent(step.share_bp)
            ),
        );
    }
    let rest = percent(decay.after_bp);
    add(
        text,
        format_args!("\n[[{table}.decay]]\npercent = \"{rest}\"\n"),
    );
}

/// Basis points as the percent that is read: `12.5`.
pub(super) fn percent(bp: u32) -> String {
    // A percent with two decimals is written like dollars with cents.
    let text = Money::from_minor(i64::from(bp), Currency::USD).to_decimal();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                add(&mut out, format_args!("\\u{:04X}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn add(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.push_str(&std::fmt::format(words));
}
