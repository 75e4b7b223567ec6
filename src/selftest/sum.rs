//! What a device gives for a case.

use super::cases::Case;
use super::error::Error;
use super::model;
use super::shapes::{KEPT, SHAPES, WIDE};
use crate::checksum::{self, Checksum};
use crate::device::Device;
use crate::fixtures::{WeightMatrix, random_norms, rules, trained_norms};
use crate::recipe::Recipe;
use crate::scores::SCORES;

impl Case {
    /// What `device` gives: a SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    #[cfg(feature = "native")]
    pub fn sum(&self, device: &Device) -> Result<String, Error> {
        pollster::block_on(self.sum_async(device, model::WEIGHTS))
    }

    /// [`Self::sum`] as a future; `example` are the bytes of `examples/tiny-llama/model.safetensors`.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub async fn sum_async(&self, device: &Device, example: &[u8]) -> Result<String, Error> {
        let mut sum = Checksum::default();
        let (dtype, score, rule) = match *self {
            Self::Model(score, rule) => {
                let pruned = model::pruned(example, device, score, rule.selection).await?;
                return Ok(checksum::of_bytes(&pruned));
            }
            Self::WeightSums(dtype) => (dtype, &SCORES[0], rules()[0]),
            Self::Alone(_, dtype, score, rule)
            | Self::Mask(dtype, score, rule)
            | Self::Trained(dtype, score, rule) => (dtype, score, rule),
        };
        let is_trained = matches!(self, Self::Trained(..));
        let more_shapes: &[_] = if is_trained { &KEPT } else { &[WIDE] };
        for (seed, &(rows, in_features)) in (1..).zip(SHAPES.iter().chain(more_shapes)) {
            let tensor = if is_trained {
                WeightMatrix::trained(seed, dtype, rows, in_features)
            } else {
                WeightMatrix::random(seed, dtype, rows, in_features, true)
            };
            let words: Vec<u32> = if let Self::WeightSums(_) = self {
                let sums = device.sums_async(tensor.view()).await?;
                let sums = sums.column.iter().chain(&sums.row);
                sums.flat_map(|&sum| [sum as u32, (sum >> 32) as u32])
                    .collect()
            } else {
                let norms = if is_trained {
                    trained_norms(seed, in_features)
                } else {
                    random_norms(seed, in_features)
                };
                let sums = device.statistics_async(tensor.view(), score).await?;
                let recipe = Recipe::new(
                    rule.selection,
                    score,
                    in_features,
                    Some(&norms),
                    sums.as_ref(),
                );
                match *self {
                    Self::Alone(step, ..) => {
                        device.alone_async(tensor.view(), 0, &recipe, step).await?
                    }
                    _ => device.mask_async(tensor.view(), 0, &recipe).await?.words,
                }
            };
            words
                .iter()
                .for_each(|word| sum.update(&word.to_le_bytes()));
        }
        Ok(sum.finish())
    }
}
