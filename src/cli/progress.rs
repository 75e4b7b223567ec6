//! LiveProgress on stderr: one live line on a terminal, a line for each tensor when piped.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use swiftprune_wgpu::calibration::{self, Calibration};
use swiftprune_wgpu::parts::Part;
use swiftprune_wgpu::prune;
use swiftprune_wgpu::run::{self, Phase, Prepared};
use swiftprune_wgpu::untrusted::shown;

use super::output;
use super::terminal::{Terminal, complain};

/// A forward pass: how far it is, time left, tokens a second.
pub(super) struct Pass {
    bar: ProgressBar,
    what: std::borrow::Cow<'static, str>,
    start: Instant,
}

/// Steps of the bar of a forward pass.
const STEPS: u64 = 10_000;

impl Pass {
    /// `what` is `calibrating` or the like.
    pub(super) fn new(what: impl Into<std::borrow::Cow<'static, str>>, terminal: Terminal) -> Self {
        let bar = if terminal.live {
            ProgressBar::new(STEPS)
        } else {
            ProgressBar::hidden()
        };
        // What does not fit a narrow terminal is cut at its end: a line that goes on in the next one cannot be cleared.
        if let Ok(style) = ProgressStyle::with_template("{bar:10} {percent:>3} %  {wide_msg}") {
            bar.set_style(style);
        }
        let what = what.into();
        bar.set_message(what.clone());
        Self {
            bar,
            what,
            start: Instant::now(),
        }
    }

    /// Shows how far a forward pass is, which goes on.
    pub(super) fn watch(&self, progress: calibration::Progress) -> ControlFlow<()> {
        self.at(progress);
        ControlFlow::Continue(())
    }

    pub(super) fn at(&self, progress: calibration::Progress) {
        let elapsed = self.start.elapsed().as_secs_f64();
        let speed = progress.done * progress.tokens as f64 / elapsed;
        let left = Duration::try_from_secs_f64(elapsed / progress.done - elapsed);
        let left = left.map_or_else(
            |_| String::new(),
            |left| format!("  {} left", duration(left)),
        );
        let what = &self.what;
        self.bar
            .set_message(format!("{what}{left}  {speed:.0} tokens/s"));
        self.bar.set_position((progress.done * STEPS as f64) as u64);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes that are read: how far, how fast, time left.
pub(super) struct ByteBar(ProgressBar);

impl ByteBar {
    /// `what` is `verifying` or the like.
    pub(super) fn new(what: &'static str, bytes: u64, terminal: Terminal) -> Self {
        let bar = if terminal.live {
            ProgressBar::new(bytes)
        } else {
            ProgressBar::hidden()
        };
        let template = "{prefix} {percent:>3} %  {eta} left  {wide_bar}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self(bar)
    }

    pub(super) fn inc(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// The progress of a whole run: a bar for the phase that is under way, a line for each tensor that is done.
pub(super) struct LiveProgress {
    /// Tokens that are calibrated on.
    tokens: usize,
    /// Bytes of the output.
    bytes: u64,
    /// Bytes of the tensors that are pruned.
    pruned_bytes: u64,
    terminal: Terminal,
    bar: Mutex<Option<Bar>>,
    done: AtomicUsize,
    to_do: usize,
    /// Warnings that were printed.
    told: Mutex<Vec<String>>,
}

enum Bar {
    Pass(Pass),
    Scoring(ByteBar),
    Pruning(ProgressBar),
    Verifying(ByteBar),
}

impl LiveProgress {
    /// Of a whole run, or of one part of it.
    pub(super) fn new(prepared: &Prepared, part: Option<Part>, terminal: Terminal) -> Self {
        let shards = &prepared.draft().checkpoint().shards;
        let bytes: Vec<u64> = shards.iter().map(|shard| shard.len).collect();
        let own = part.map_or_else(|| (0..bytes.len()).collect(), |part| part.shards(&bytes));
        Self {
            tokens: prepared.calibration().map_or(0, Calibration::tokens),
            bytes: own.iter().map(|&shard| bytes[shard]).sum(),
            pruned_bytes: prepared.draft().bytes_pruned(),
            terminal,
            bar: Mutex::default(),
            done: AtomicUsize::new(0),
            told: Mutex::new(prepared.draft().warnings().to_vec()),
            to_do: prepared
                .draft()
                .pruned()
                .filter(|(tensor, _)| own.contains(&tensor.shard))
                .count(),
        }
    }

    pub(super) fn event(&self, event: run::Event<'_>) {
        let mut bar = self.bar.lock();
        match event {
            run::Event::Started(phase) => *bar = Some(self.bar_of(phase)),
            run::Event::Finished { phase, elapsed } => {
                clear(bar.take());
                if phase == Phase::Calibrate {
                    self.terminal.say(calibrated(self.tokens, elapsed));
                }
                if phase == Phase::Allocate {
                    let seconds = elapsed.as_secs_f64();
                    self.terminal.say(format_args!(
                        "scored {} in {seconds:.2} s ({:.2} GB/s)",
                        output::bytes(self.pruned_bytes),
                        self.pruned_bytes as f64 / 1e9 / seconds
                    ));
                }
            }
            run::Event::Forward(at) => {
                if let Some(Bar::Pass(pass)) = &*bar {
                    pass.at(at);
                }
            }
            run::Event::Prune(event) => {
                if let Some(Bar::Pruning(bar)) = &*bar {
                    self.pruned(bar, event);
                }
            }
            run::Event::Scored(bytes) => {
                if let Some(Bar::Scoring(bar)) = &*bar {
                    bar.inc(bytes);
                }
            }
            run::Event::Compared(bytes) => {
                if let Some(Bar::Verifying(bar)) = &*bar {
                    bar.inc(bytes);
                }
            }
            run::Event::Kept { kept, of } => self.terminal.say(format_args!(
                "kept    {kept} of {of} files of weights, finished before"
            )),
            run::Event::Warning(what) | run::Event::DeviceFailed { what, .. } => {
                self.terminal.warn(what);
                self.told.lock().push(what.to_owned());
            }
            _ => {}
        }
    }

    /// The warnings that were printed, those of the draft first.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().clone()
    }

    /// Clears what a phase that failed has left.
    pub(super) fn close(&self) {
        clear(self.bar.lock().take());
    }

    fn bar_of(&self, phase: Phase) -> Bar {
        match phase {
            Phase::Calibrate => Bar::Pass(Pass::new("calibrating", self.terminal)),
            Phase::Allocate => {
                Bar::Scoring(ByteBar::new("scoring", self.pruned_bytes, self.terminal))
            }
            Phase::Prune => Bar::Pruning(self.pruning()),
            Phase::Verify => Bar::Verifying(ByteBar::new("verifying", self.bytes, self.terminal)),
            Phase::Checksum => Bar::Verifying(ByteBar::new("hashing", self.bytes, self.terminal)),
            _ => Bar::Pass(Pass::new("evaluating", self.terminal)),
        }
    }

    fn pruning(&self) -> ProgressBar {
        let bar = if self.terminal.live {
            ProgressBar::new(self.bytes)
        } else {
            ProgressBar::hidden()
        };
        let template = "{bar:10} {percent:>3} %  {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    fn pruned(&self, bar: &ProgressBar, event: prune::PruneEvent<'_>) {
        match event {
            prune::PruneEvent::Written(bytes) => bar.inc(bytes),
            prune::PruneEvent::Tensor { tensor, counts } => {
                let name = shown(&tensor.name).to_string();
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                if !self.terminal.quiet && (self.terminal.verbose || !self.terminal.live) {
                    let line = format!(
                        "[{done:>4}/{}] {name:<48} {:?} {:?}  {}",
                        self.to_do,
                        tensor.dtype,
                        tensor.shape,
                        output::percent(counts.sparsity())
                    );
                    bar.suspend(|| complain(&line));
                }
                bar.set_message(name);
            }
            _ => {}
        }
    }
}

fn clear(bar: Option<Bar>) {
    match bar {
        Some(Bar::Pass(pass)) => pass.finish(),
        Some(Bar::Pruning(bar)) => bar.finish_and_clear(),
        Some(Bar::Verifying(bar) | Bar::Scoring(bar)) => bar.finish(),
        None => {}
    }
}

/// What was measured, and how fast.
pub(super) fn calibrated(tokens: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    format!(
        "calibrated on {} tokens in {seconds:.1} s ({:.0} tokens/s)",
        output::count(tokens as u64),
        tokens as f64 / seconds
    )
}

/// A time for humans: seconds, or minutes, or hours and minutes.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        seconds if seconds < 99.5 * 60.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}
