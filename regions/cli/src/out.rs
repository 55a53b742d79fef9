//! What commands write for people: lines, tables, a live line.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Width of tables where there is no terminal.
const TABLE_COLUMNS: u16 = 120;

/// Writes a line to standard output. A reader that went away (`| head`) is no error.
pub fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Writes a value as JSON in one document.
///
/// # Errors
/// When it has no JSON form.
pub fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Whether people look at standard error: live lines are shown then.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// A line on standard error that changes while something runs; hidden when nobody watches.
pub fn live_line() -> ProgressBar {
    let target = if is_watched() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// An empty table in the house's style.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(TABLE_COLUMNS);
    }
    table.set_header(header);
    table
}

/// Aligns some columns to the right, as numbers want it.
pub fn align_right(table: &mut Table, columns: Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
