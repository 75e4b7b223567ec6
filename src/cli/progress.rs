//! Progress on stderr: one live line on a terminal, one line a tensor when piped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use swiftprune_wgpu::forward;
use swiftprune_wgpu::plan::Plan;
use swiftprune_wgpu::prune::Event;

use super::{Terminal, output};

/// A forward pass: how far it is, tokens a second, time left.
pub(super) struct Pass {
    bar: ProgressBar,
    start: Instant,
}

/// Steps of the bar of a forward pass.
const STEPS: u64 = 10_000;

impl Pass {
    /// `what` is `calibrating` or the like.
    pub(super) fn new(what: &'static str, terminal: Terminal) -> Self {
        let bar = if terminal.live {
            ProgressBar::new(STEPS)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} {bar:20} {percent:>3} %  {msg}  {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self {
            bar,
            start: Instant::now(),
        }
    }

    pub(super) fn at(&self, progress: forward::Progress) {
        let speed = progress.done * progress.tokens as f64 / self.start.elapsed().as_secs_f64();
        self.bar.set_message(format!("{speed:.0} tokens/s"));
        self.bar.set_position((progress.done * STEPS as f64) as u64);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

pub(super) struct Progress<'a> {
    plan: &'a Plan,
    terminal: Terminal,
    bar: ProgressBar,
    done: AtomicUsize,
    to_do: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn new(plan: &'a Plan, terminal: Terminal) -> Self {
        let bar = if terminal.live {
            ProgressBar::new(plan.bytes_total())
        } else {
            ProgressBar::hidden()
        };
        let template = "{bar:20} {percent:>3} %  {decimal_bytes_per_sec}  {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            plan,
            terminal,
            bar,
            done: AtomicUsize::new(0),
            to_do: plan.pruned().count(),
        }
    }

    pub(super) fn event(&self, event: Event) {
        match event {
            Event::Written(bytes) => self.bar.inc(bytes),
            Event::Tensor { index, counts } => {
                let tensor = &self.plan.tensors[index];
                let name = output::printable(&tensor.name);
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                if !self.terminal.quiet && (self.terminal.verbose || !self.terminal.live) {
                    let line = format!(
                        "[{done:>4}/{}] {name:<48} {:?} {:?}  {}",
                        self.to_do,
                        tensor.dtype,
                        tensor.shape,
                        output::percent(counts.sparsity())
                    );
                    self.bar.suspend(|| eprintln!("{line}"));
                }
                self.bar.set_message(name);
            }
            _ => {}
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
