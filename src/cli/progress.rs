//! Progress on stderr: one live line on a terminal, one line a tensor when piped.

use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use swiftprune_wgpu::plan::Plan;
use swiftprune_wgpu::prune::Event;

use super::{Terminal, output};

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
