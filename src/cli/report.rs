//! `report`: a page of reports that were written before.

use std::io::Write as _;

use anyhow::Context as _;
use swiftprune_wgpu::checkpoint::keep_apart;
use swiftprune_wgpu::report::page::{Document, page, parse};
use swiftprune_wgpu::untrusted::{self, shown_path};

use super::args::Report;
use super::output::write_whole;
use super::terminal::Terminal;

/// The longest report that is read, in bytes.
const MAX_REPORT: u64 = 128 << 20;

pub(super) fn run(args: &Report, terminal: Terminal) -> anyhow::Result<()> {
    if args.output.symlink_metadata().is_ok() && !args.force {
        anyhow::bail!(
            "{} exists; choose another name, or use --force to replace it",
            shown_path(&args.output)
        );
    }
    for report in &args.reports {
        keep_apart(&args.output, "a report that is read", report)?;
    }
    let (mut runs, mut sweeps) = (Vec::new(), Vec::new());
    for path in &args.reports {
        let what = || format!("cannot use the report {}", shown_path(path));
        let json = untrusted::read(path, MAX_REPORT).with_context(what)?;
        match parse(&json).with_context(what)? {
            Document::Run(run) => runs.push(*run),
            Document::Sweep(sweep) => sweeps.push(*sweep),
            _ => {}
        }
    }
    let html = page(&runs, &sweeps);
    write_whole(&args.output, html.as_bytes())
        .with_context(|| format!("cannot write {}", shown_path(&args.output)))?;
    terminal.say(shown_path(&args.output));
    std::io::stdout().flush()?;
    Ok(())
}
