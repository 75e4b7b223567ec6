//! Signals: what ends a run from outside asks it to stop first, so that it removes what it has staged.
//!
//! The library installs no handlers. SIGINT, SIGTERM and SIGHUP set the run's [`Stop`] here; a second one ends the program
//! at once, as without a handler. A signal that the program was started to ignore (`nohup`, a job in the background)
//! stays ignored. A write beyond the limit for a file's size (SIGXFSZ) becomes an error of that write.
//!
//! On Windows, Ctrl-C and Ctrl-Break do the same, with the exit code of SIGINT. What ends the process there gives it no time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use swiftprune_wgpu::run::Stop;

use super::ended::Ended;

/// Which signal has asked for the stop, while a run is under way.
#[derive(Debug, Default)]
pub(super) struct Signals {
    received: Arc<AtomicUsize>,
}

/// What is added to the number of a signal to make the exit code that shells give for it.
const BY_SIGNAL: u8 = 128;

impl Signals {
    /// What was done until its end; the end itself where one of the signals has asked for it.
    ///
    /// # Errors
    /// [`Ended`] for an error that `is_stop`, after a signal; else the error.
    pub(super) fn result<T, E: std::error::Error + Send + Sync + 'static>(
        &self,
        done: Result<T, E>,
        is_stop: impl FnOnce(&E) -> bool,
    ) -> anyhow::Result<T> {
        let number = u8::try_from(self.received.load(Ordering::SeqCst)).unwrap_or(0);
        done.map_err(|error| match number {
            1.. if is_stop(&error) => anyhow::Error::new(Ended {
                code: BY_SIGNAL + number,
                said: Some(error.to_string()),
            }),
            _ => error.into(),
        })
    }
}

#[cfg(unix)]
impl Signals {
    /// Lets SIGINT, SIGTERM and SIGHUP ask for this stop.
    pub(super) fn stopping(stop: &Stop) -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag;

        let signals = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if is_ignored(signal) {
                continue;
            }
            // In this order: the first signal finds the flag unset, and sets it.
            flag::register_conditional_default(signal, stop.flag())?;
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, signals.received.clone(), number)?;
            flag::register(signal, stop.flag())?;
        }
        Ok(signals)
    }
}

/// Makes a write beyond the limit for a file's size an error.
#[cfg(unix)]
pub(super) fn ignore_size_limit() {
    // With a handler, whatever it does, the write fails with EFBIG instead.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Stop::new().flag());
}

/// Whether the program was started with this signal ignored.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    use std::io::IsTerminal as _;

    let status = std::fs::read_to_string("/proc/self/status").ok();
    let mask = status.as_deref().and_then(|status| {
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    match mask {
        Some(mask) => mask >> (signal - 1) & 1 == 1,
        // Where it cannot be asked, `nohup` is told by what it does to the outputs.
        None => signal == signal_hook::consts::SIGHUP && !std::io::stderr().is_terminal(),
    }
}

#[cfg(windows)]
impl Signals {
    /// Lets Ctrl-C and Ctrl-Break ask for this stop.
    pub(super) fn stopping(stop: &Stop) -> std::io::Result<Self> {
        const SIGINT: u8 = 2;

        let signals = Self::default();
        let (received, stop) = (signals.received.clone(), stop.clone());
        ctrlc::set_handler(move || {
            if stop.is_requested() {
                std::process::exit(i32::from(BY_SIGNAL + SIGINT));
            }
            received.store(SIGINT.into(), Ordering::SeqCst);
            stop.request();
        })
        .map_err(std::io::Error::other)?;
        Ok(signals)
    }
}

#[cfg(not(unix))]
pub(super) const fn ignore_size_limit() {}
