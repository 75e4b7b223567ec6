//! Perplexity of a model on a text, and the paired difference between two models.

use std::time::{Duration, Instant};

use crate::calibration::{Error, check_window, context_of};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, DeviceInfo};
use crate::forward::{Forward, Watch, WeightOverlay};
use crate::model::Architecture;
use crate::text::{self, Prefix, Text};

/// The losses of one model on one text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evaluation {
    /// What every window begins with. It predicts, and is not predicted.
    pub prefix: Prefix,
    /// Tokens a window; windows do not overlap, and each starts anew.
    pub context: usize,
    /// The loss of every token of the text, in nats: of all of a window but its prefix, or but the first where there is none.
    pub losses: Vec<Vec<f32>>,
    /// The tokens, window by window.
    pub sequence: Vec<u32>,
    /// Where the forward pass ran.
    pub device: DeviceInfo,
    /// How long it took.
    pub elapsed: Duration,
}

/// The paired difference of two models on one text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean of the second's losses less the first's, in nats per token.
    pub mean: f64,
    /// Its standard error over windows, as tokens of one window are not independent; none for a single window.
    pub standard_error: Option<f64>,
}

/// What a model will be asked: everything that can be wrong with the request has been checked.
#[derive(Clone, Debug)]
pub struct Windows {
    prefix: Prefix,
    context: usize,
    tokens: Vec<u32>,
}

impl Windows {
    /// The whole windows of `context` tokens that a checkpoint's tokenizer makes of `text`, at most `tokens` tokens in all. Each
    /// begins with what the tokenizer puts before a text. A text shorter than a window is a window of its own.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::Forward`].
    pub fn new(
        checkpoint: &Checkpoint,
        text: &Text,
        context: Option<usize>,
        tokens: Option<usize>,
    ) -> Result<Self, Error> {
        let architecture = Architecture::of(checkpoint)?;
        architecture.check_lm_head(checkpoint)?;
        let context = context_of(&architecture, context)?;
        let limit = tokens.unwrap_or(usize::MAX);
        if limit < 2 {
            return Err(Error::FewTokens { tokens: limit });
        }
        let all = text::tokenize(checkpoint, text, limit)?;
        // A window's least: something to predict from, and something to predict.
        check_window(context, 1 + usize::from(all.prefix.is_empty()), &all.prefix)?;
        let windows = all.windows(context, limit);
        let whole = windows.iter().take_while(|window| window.len() == context);
        let tokens = windows[..whole.count().max(1).min(windows.len())].concat();
        if tokens.len() <= all.prefix.predicted_from() {
            return Err(Error::Text(text::Error::TooShort {
                text: text.name.clone(),
                found: all.ids.len(),
                wanted: 2,
            }));
        }
        Ok(Self {
            prefix: all.prefix,
            context,
            tokens,
        })
    }

    /// What every window begins with.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Tokens a window.
    #[must_use]
    pub const fn context(&self) -> usize {
        self.context
    }

    /// The tokens, window by window.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Losses that were measured on these windows before; `None` if they are of others.
    pub(crate) fn measured(&self, losses: Vec<Vec<f32>>, device: DeviceInfo) -> Option<Evaluation> {
        let predicted = self
            .tokens
            .chunks(self.context)
            .map(|window| window.len() - self.prefix.predicted_from());
        let is_of_these = predicted.eq(losses.iter().map(Vec::len));
        is_of_these.then(|| Evaluation {
            prefix: self.prefix.clone(),
            context: self.context,
            losses,
            sequence: self.tokens.clone(),
            device,
            elapsed: Duration::ZERO,
        })
    }

    /// Runs `checkpoint`, which need not be the one whose tokenizer made the windows, on `device`.
    ///
    /// # Errors
    /// [`Error::Model`] and [`Error::Forward`].
    pub fn run(
        &self,
        checkpoint: &Checkpoint,
        device: &Device,
        progress: &Watch<'_>,
    ) -> Result<Evaluation, Error> {
        self.run_with(checkpoint, None, device, progress)
    }

    /// The same, with weights in the place of those in the files.
    pub(crate) fn run_with(
        &self,
        checkpoint: &Checkpoint,
        overlay: Option<&dyn WeightOverlay>,
        device: &Device,
        progress: &Watch<'_>,
    ) -> Result<Evaluation, Error> {
        let architecture = Architecture::of(checkpoint)?;
        architecture.check_lm_head(checkpoint)?;
        let windows: Vec<&[u32]> = self.tokens.chunks(self.context).collect();
        let start = Instant::now();
        let forward = Forward::new(checkpoint, &architecture, device).with_overlay(overlay);
        let mut losses = forward.losses(&windows, progress)?;
        for window in &mut losses {
            // The forward pass predicts all tokens but the first.
            window.drain(..self.prefix.predicted_from() - 1);
        }
        Ok(Evaluation {
            prefix: self.prefix.clone(),
            context: self.context,
            losses,
            sequence: self.tokens.clone(),
            device: device.info().clone(),
            elapsed: start.elapsed(),
        })
    }
}

impl Evaluation {
    /// Tokens that were predicted.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.losses.iter().map(Vec::len).sum()
    }

    /// Tokens a second, those that are not predicted counted.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.sequence.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Mean loss in nats per token.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let sum: f64 = self.losses.iter().flatten().map(|&l| f64::from(l)).sum();
        sum / self.tokens() as f64
    }

    /// `exp` of the mean loss.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        self.mean_loss().exp()
    }

    /// The standard error of the mean loss over windows, in nats per token, as tokens of one window are not independent; none
    /// for a single window.
    #[must_use]
    pub fn standard_error(&self) -> Option<f64> {
        let sums = self.losses.iter().map(|window| {
            let sum = window.iter().map(|&loss| f64::from(loss)).sum();
            (sum, window.len() as f64)
        });
        over_windows(&sums.collect::<Vec<_>>()).standard_error
    }

    /// How much more `other` loses on the same windows; `None` if they are not the same, token for token.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let lengths = |e: &Self| e.losses.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(self) != lengths(other) || self.sequence != other.sequence {
            return None;
        }
        // The sum of each window's differences, and its tokens.
        let windows: Vec<(f64, f64)> = self
            .losses
            .iter()
            .zip(&other.losses)
            .map(|(a, b)| {
                let pairs = a.iter().zip(b);
                let sum = pairs.map(|(&a, &b)| f64::from(b) - f64::from(a)).sum();
                (sum, a.len() as f64)
            })
            .collect();
        Some(over_windows(&windows))
    }
}

/// The mean of sums over windows, and its standard error: of each window the sum and the number of tokens.
fn over_windows(windows: &[(f64, f64)]) -> Difference {
    let tokens: f64 = windows.iter().map(|(_, len)| len).sum();
    let mean = windows.iter().map(|(sum, _)| sum).sum::<f64>() / tokens;
    let n = windows.len() as f64;
    let squares: f64 = windows
        .iter()
        .map(|(sum, len)| (sum - mean * len).powi(2))
        .sum();
    let standard_error = (n > 1.0).then(|| (squares * n / (n - 1.0)).sqrt() / tokens);
    Difference {
        mean,
        standard_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;

    fn evaluation(losses: &[&[f32]]) -> Evaluation {
        Evaluation {
            prefix: Prefix::default(),
            context: 3,
            losses: losses.iter().map(|window| window.to_vec()).collect(),
            sequence: vec![0; losses.iter().map(|window| window.len() + 1).sum()],
            device: Device::open(&DeviceChoice::Cpu).unwrap().info().clone(),
            elapsed: Duration::from_secs(1),
        }
    }

    #[test]
    fn perplexity_is_that_of_all_tokens_together() {
        let one = evaluation(&[&[1.0, 3.0], &[2.0]]);
        assert_eq!((one.tokens(), one.mean_loss()), (3, 2.0));
        assert_eq!(one.perplexity(), 2.0_f64.exp());
        assert_eq!(one.tokens_per_second(), 5.0);
    }

    #[test]
    fn a_difference_is_of_pairs_and_its_error_of_windows() {
        let one = evaluation(&[&[1.0, 2.0], &[5.0, 6.0]]);
        let two = evaluation(&[&[2.0, 3.0], &[8.0, 9.0]]);
        let difference = one.difference(&two).unwrap();
        // Windows differ by 1 and by 3 a token: mean 2, deviation sqrt(2), over sqrt(2) windows.
        assert_eq!(difference.mean, 2.0);
        assert!((difference.standard_error.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(one.difference(&evaluation(&[&[1.0, 2.0]])), None);
        // Of itself: windows of 1.5 and 5.5 a token, deviation sqrt(8), over sqrt(2) windows.
        assert!((one.standard_error().unwrap() - 2.0).abs() < 1e-12);
        let single = evaluation(&[&[1.0]]);
        assert_eq!(single.standard_error(), None);
        assert_eq!(single.difference(&single).unwrap().standard_error, None);
    }
}
