//! What a run of abuse came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::all_told;
use super::attack::Done;
use super::bank::Told;
use super::memory::Memory;
use crate::bench::cpu::Usage;
use crate::bench::summary::Machine;

/// What share of an honest bank's payments has to be answered in time.
const ANSWERED_TARGET: f64 = 0.999;
/// What memory the edge may take.
const MEMORY_TARGET_MIB: f64 = 256.0;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    stores: u32,
    rate: u64,
    seconds: u64,
    /// In order.
    pub phases: Vec<Phase>,
}

/// What one phase found.
#[derive(Debug, Serialize)]
pub struct Phase {
    label: String,
    bank: Told,
    memory: Memory,
    attack: Done,
    cpu: Usage,
    /// What the edge counted: refusals by cause, connections it closed, handshakes that failed.
    counted: BTreeMap<String, f64>,
}

// === impl Phase ===

impl Phase {
    pub(super) fn new(
        label: &str,
        bank: Told,
        memory: Memory,
        (cpu, attack): (Usage, Done),
        (before, after): (&BTreeMap<String, f64>, &BTreeMap<String, f64>),
    ) -> Self {
        const COUNTED: [&str; 4] = [
            "standin_refusals_total",
            "standin_shed_total",
            "standin_connections_refused_total",
            "standin_handshakes_failed_total",
        ];
        let counted = after.iter().filter_map(|(name, now)| {
            let short = COUNTED.iter().find(|counter| name.starts_with(*counter))?;
            let more = now - before.get(name).copied().unwrap_or(0.0);
            let labels = name.strip_prefix(short)?.replace('"', "");
            let short = short
                .trim_start_matches("standin_")
                .trim_end_matches("_total");
            (more > 0.0).then(|| (format!("{short}{labels}"), more))
        });
        Self {
            label: label.to_owned(),
            counted: counted.collect(),
            bank,
            memory,
            attack,
            cpu,
        }
    }

    /// In one line, for who watches.
    pub fn line(&self) -> String {
        let Told {
            sent,
            at_first,
            at_second,
            refused,
            failed,
            latency_ms: [p50, p99, max],
            ..
        } = self.bank;
        format!(
            "    {at_first} and {at_second} of {sent} answered, {refused} refused, {failed} failed; \
             p50 {p50:.1} p99 {p99:.1} max {max:.1} ms; {:.0} MiB; {:?}; {:?}; cpu {:?}; {:?}",
            self.memory.phase_peak_mib, self.attack, self.counted, self.cpu.cores, self.bank.why
        )
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(machine: Machine, stores: u32, rate: u64, seconds: u64) -> Self {
        Self {
            machine,
            stores,
            rate,
            seconds,
            phases: Vec::new(),
        }
    }

    /// The tables, and whether the targets hold.
    pub fn markdown(&self) -> String {
        let mut page = self.machine.line();
        line(
            &mut page,
            format_args!(
                "{} stores; an honest bank's {} payments a second, {} s a phase.\n\n\
                 | phase | in time | of them at the second try | refused | failed | fresh connections | p50 ms | p99 ms | max ms \
                 | RSS MiB | edge | generator |\n|---|---|---|---|---|---|---|---|---|---|---|---|",
                self.stores, self.rate, self.seconds
            ),
        );
        for phase in &self.phases {
            let bank = &phase.bank;
            let [p50, p99, max] = bank.latency_ms;
            let cores = |name: &str| phase.cpu.cores.get(name).copied().unwrap_or(0.0);
            line(
                &mut page,
                format_args!(
                    "| {} | {} of {} ({:.2} %) | {} | {} | {} | {} of {} | {p50:.1} | {p99:.1} | {max:.1} | {:.0} | {:.2} | {:.2} |",
                    phase.label,
                    bank.in_time(),
                    bank.sent,
                    share(bank.in_time(), bank.sent) * 100.0,
                    bank.at_second,
                    bank.refused,
                    bank.failed,
                    bank.fresh_in_time,
                    bank.fresh,
                    phase.memory.phase_peak_mib,
                    cores("edge"),
                    cores("generator"),
                ),
            );
        }
        page.push('\n');
        page.push_str(
            "| phase | connections | let in | at once | resets/s | counted by the edge |\n|---|---|---|---|---|---|\n",
        );
        for phase in &self.phases {
            let counted = phase.counted.iter();
            let counted = counted.map(|(name, count)| format!("{name} {count:.0}"));
            let counted: Vec<String> = counted.collect();
            let Done {
                connected,
                let_in,
                let_in_at_once,
                resets,
            } = phase.attack;
            line(
                &mut page,
                format_args!(
                    "| {} | {connected} | {let_in} | {let_in_at_once} | {} | {} |",
                    phase.label,
                    resets / self.seconds.max(1),
                    counted.join(", "),
                ),
            );
        }
        page.push('\n');
        self.targets(&mut page);
        page
    }

    fn targets(&self, page: &mut String) {
        let (sent, answered) = all_told(self.phases.iter().map(|phase| &phase.bank));
        let worst = self
            .phases
            .iter()
            .map(|phase| share(phase.bank.in_time(), phase.bank.sent));
        let worst = worst.fold(1.0, f64::min);
        line(
            page,
            format_args!(
                "- at least {:.1} % of an honest bank's payments answered in time, in every phase: {} \
                 ({answered} of {sent} in all, {:.2} % in the worst phase)",
                ANSWERED_TARGET * 100.0,
                verdict(worst >= ANSWERED_TARGET),
                worst * 100.0,
            ),
        );
        let peaks = self.phases.iter().map(|phase| phase.memory.peak_mib);
        let peak = peaks.fold(0.0, f64::max);
        line(
            page,
            format_args!(
                "- resident memory under {MEMORY_TARGET_MIB:.0} MiB with {} stores: {} (peak {peak:.0} MiB)",
                self.stores,
                verdict(peak < MEMORY_TARGET_MIB)
            ),
        );
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes every text");
    page.push('\n');
}
