//! A few rows of a run, as a report draws them: the scores along a row beside what they were compared with, and how all scores
//! of some rows are spread.
//!
//! They are computed again, on the CPU, from the original's weights and by the run's own recipes; what was pruned is read from
//! the output.

use serde::Serialize;

use super::chunk::Chunk;
use super::error::Error;
use super::matrix::Matrix;
use super::pruned_weights::PrunedWeights;
use crate::checkpoint::{Checkpoint, Reader};
use crate::compensation::decode;
use crate::device::cpu;
use crate::passes::ewma::{Average, averages};
use crate::passes::fused::cut_threshold;
use crate::passes::keys::SMALLEST_LIVE;
use crate::passes::select::{Cut, Near};
use crate::plan::Plan;
use crate::recipe::{Recipe, Rows, Step};
use crate::selection::STEPS;
use crate::stop::Stop;

/// Columns of a row that are drawn: four blocks of the moving average by default.
const COLUMNS: usize = 512;

/// Rows that are drawn.
const DRAWN: usize = 3;

/// Tensors whose rows are counted in the histogram, and rows of each.
const COUNTED_TENSORS: usize = 12;
const COUNTED_ROWS: usize = 16;

/// The histogram goes from `-RANGE` to `RANGE` deviations.
const RANGE: f64 = 8.0;
/// Its bars.
const BARS: usize = 96;

/// A few rows of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Samples {
    /// Rows with their scores.
    pub rows: Vec<SampleRow>,
    /// How normalised scores are spread; none for a rule that does not normalise.
    pub histogram: Option<Histogram>,
}

/// The first columns of one row.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SampleRow {
    /// The tensor's name.
    pub tensor: String,
    /// The row's number.
    pub row: usize,
    /// Columns of the whole row.
    pub in_features: usize,
    /// The base-2 logarithm of each score as the passes take it, which is linear between powers of two; none for one that is
    /// zero or not finite.
    pub scores: Vec<Option<f32>>,
    /// Columns that are zero in the output.
    pub pruned: Vec<usize>,
    /// Columns a block of the moving average; none for a rule without.
    pub block_size: Option<usize>,
    /// Of each block the moving average and its mean absolute deviation, in the units of the scores.
    pub averages: Vec<[f32; 2]>,
    /// The lambda of the row: weights below `average + lambda deviation` went. None for a rule without.
    pub lambda: Option<f64>,
    /// The score below which weights went, for the rule that takes the lowest.
    pub threshold: Option<f32>,
}

/// How the normalised scores of some rows are spread.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// Rows that were counted, of several tensors.
    pub rows: usize,
    /// Where the first bar begins, in deviations from the moving average.
    pub from: f64,
    /// Where the last bar ends; scores outside are in the outermost bars.
    pub to: f64,
    /// Scores in each bar.
    pub counts: Vec<u64>,
    /// The lambdas of the rows: the least, the mean and the largest.
    pub lambda: [f64; 3],
}

/// Samples of a run whose output is there.
///
/// # Errors
/// [`Error::Checkpoint`] when a file cannot be read, and what [`Error`] has for recipes.
pub fn samples(plan: &Plan, output: &Checkpoint, stop: &Stop) -> Result<Samples, Error> {
    let weights = PrunedWeights::new(plan, 1, stop)?;
    let written = Reader::open(output)?;
    let matrices = weights.matrices();
    let mut samples = Samples::default();
    for index in spread(matrices.len(), DRAWN) {
        let (matrix, recipe) = (&matrices[index], weights.recipe(&matrices[index])?);
        if matrix.target.out_features > 0 && matrix.target.in_features > 0 {
            let name = &plan.tensors()[matrix.tensor].name;
            let row = draw(name, matrix, &recipe.recipe, weights.reader(), &written)?;
            samples.rows.push(row);
        }
    }
    let mut counting = Counting::default();
    for index in spread(matrices.len(), COUNTED_TENSORS) {
        let matrix = &matrices[index];
        if matrix.selection.ewma().is_some() && matrix.target.in_features > 0 {
            let recipe = weights.recipe(matrix)?;
            counting.count(matrix, &recipe.recipe, weights.reader())?;
        }
    }
    samples.histogram = counting.finish();
    Ok(samples)
}

/// Some of so many places, the first and the last among them, each once.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let last = len.saturating_sub(1);
    let mut places: Vec<usize> = (0..count.min(len))
        .map(|i| i * last / (count.min(len) - 1).max(1))
        .collect();
    places.dedup();
    places
}

/// A logarithm of the passes, which has 10 fraction bits above the exponent's bias, as a base-2 logarithm.
fn log2(log: f64) -> f32 {
    (log / 1024.0 - 127.0) as f32
}

fn draw(
    name: &str,
    matrix: &Matrix<'_>,
    recipe: &Recipe,
    input: &Reader<'_>,
    output: &Reader<'_>,
) -> Result<SampleRow, Error> {
    let (row, in_features) = (matrix.target.out_features / 2, matrix.target.in_features);
    let mut chunk = Chunk::default();
    matrix.read(input, row..row + 1, &mut chunk)?;
    let weights = Rows::new(matrix.dtype, in_features, chunk.bytes());
    let order_keys = cpu::alone(weights, row, recipe, Step::Score);
    let columns = in_features.min(COLUMNS);
    let live = SMALLEST_LIVE..0x7f80_0000;
    let score = |&key: &u32| live.contains(&key).then(|| log2(f64::from(key >> 13)));
    let scores: Vec<Option<f32>> = order_keys[..columns].iter().map(score).collect();
    let (mut of_blocks, mut lambda, mut threshold) = (Vec::new(), None, None);
    let ewma = recipe.selection.ewma();
    if let Some(ewma) = ewma {
        let blocks = columns.div_ceil(ewma.block_size());
        let of_block = |average: Average| {
            // Seven fraction bits more; a deviation is a distance, without the exponent's bias.
            let mean = log2(f64::from(average.mean) / 128.0);
            [
                mean,
                (f64::from(average.deviation.max(256)) / 131_072.0) as f32,
            ]
        };
        let all = averages(&order_keys, ewma).into_iter().take(blocks);
        of_blocks = all.map(of_block).collect();
        let keys = threshold_keys(weights, row, recipe);
        lambda = Some(lambda_of(&keys, recipe));
    } else if let Some(k) = recipe.selection.k(in_features) {
        let mut sorted = order_keys.clone();
        sorted.sort_unstable();
        let cut = sorted.get(k.min(in_features - 1));
        threshold = cut.and_then(score);
    }
    matrix.read(output, row..row + 1, &mut chunk)?;
    let after = decode(matrix.dtype, chunk.bytes());
    Ok(SampleRow {
        tensor: name.to_owned(),
        row,
        in_features,
        scores,
        pruned: (0..columns)
            .filter(|&column| after[column] == 0.0)
            .collect(),
        block_size: ewma.map(|ewma| ewma.block_size()),
        averages: of_blocks,
        lambda,
        threshold,
    })
}

/// Normalised scores, in steps of `1 / STEPS` deviations.
fn threshold_keys(weights: Rows<'_>, first_row: usize, recipe: &Recipe) -> Vec<i16> {
    let ranks = cpu::alone(weights, first_row, recipe, Step::Ewma);
    let keys = ranks.into_iter().map(|rank| (rank as i32 - 32768) as i16);
    keys.collect()
}

/// The lambda of one row.
fn lambda_of(keys: &[i16], recipe: &Recipe) -> f64 {
    let Cut { threshold, .. } = cut_threshold(keys, &recipe.selection, &mut Near::default());
    f64::from(threshold) / STEPS
}

/// The histogram so far.
struct Counting {
    counts: Vec<u64>,
    lambdas: Vec<f64>,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            counts: vec![0; BARS],
            lambdas: Vec::new(),
        }
    }
}

impl Counting {
    fn count(
        &mut self,
        matrix: &Matrix<'_>,
        recipe: &Recipe,
        input: &Reader<'_>,
    ) -> Result<(), Error> {
        let mut chunk = Chunk::default();
        for row in spread(matrix.target.out_features, COUNTED_ROWS) {
            matrix.read(input, row..row + 1, &mut chunk)?;
            let weights = Rows::new(matrix.dtype, matrix.target.in_features, chunk.bytes());
            let keys = threshold_keys(weights, row, recipe);
            // The outermost keys are those of weights without a score.
            for &key in keys.iter().filter(|key| (-32766..=32766).contains(*key)) {
                let place = (f64::from(key) / STEPS + RANGE) / (2.0 * RANGE) * BARS as f64;
                self.counts[(place.max(0.0) as usize).min(BARS - 1)] += 1;
            }
            self.lambdas.push(lambda_of(&keys, recipe));
        }
        Ok(())
    }

    fn finish(self) -> Option<Histogram> {
        let rows = self.lambdas.len();
        let least = self.lambdas.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .lambdas
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let mean = self.lambdas.iter().sum::<f64>() / rows.max(1) as f64;
        (rows > 0).then_some(Histogram {
            rows,
            from: -RANGE,
            to: RANGE,
            counts: self.counts,
            lambda: [least, mean, most],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::prune;
    use super::*;
    use crate::checkpoint::{Output, OutputOptions};
    use crate::device::{Device, DeviceChoice};
    use crate::plan::{Ewma, Options, Pattern, Selection};

    fn of(selection: Selection) -> Samples {
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        let plan = Plan::new(checkpoint, Options::new(selection), None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
        let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
        prune(&plan, &cpu, output, &|_| (), &Stop::new()).unwrap();
        samples(&plan, &Checkpoint::open_path(&out).unwrap(), &Stop::new()).unwrap()
    }

    #[test]
    fn what_is_drawn_below_the_threshold_is_what_was_pruned() {
        let samples = of(Selection::Ewma {
            sparsity: 0.4,
            ewma: Ewma::default(),
        });
        assert_eq!(samples.rows.len(), 3);
        for row in &samples.rows {
            let (block, lambda) = (row.block_size.unwrap(), row.lambda.unwrap());
            let mut near = 0;
            for (column, score) in row.scores.iter().enumerate() {
                let [mean, deviation] = row.averages[column / block];
                let distance = f64::from(score.unwrap() - mean) / f64::from(deviation) - lambda;
                let is_pruned = row.pruned.contains(&column);
                // The passes round a few steps; what is that near says nothing.
                if distance.abs() < 0.02 {
                    near += 1;
                } else {
                    assert_eq!(
                        is_pruned,
                        distance < 0.0,
                        "{} {column} {distance}",
                        row.tensor
                    );
                }
            }
            assert!(near * 10 < row.scores.len(), "{near}");
            assert!(!row.pruned.is_empty());
        }
    }

    #[test]
    fn the_histogram_has_every_score_and_lambda_cuts_off_what_was_asked_for() {
        let samples = of(Selection::Ewma {
            sparsity: 0.25,
            ewma: Ewma::default(),
        });
        let histogram = samples.histogram.unwrap();
        let all: u64 = histogram.counts.iter().sum();
        let width = (histogram.to - histogram.from) / histogram.counts.len() as f64;
        let bars = ((histogram.lambda[1] - histogram.from) / width).round() as usize;
        let below: u64 = histogram.counts[..bars].iter().sum();
        let share = below as f64 / all as f64;
        assert!((share - 0.25).abs() < 0.06, "{share}");
        assert!(histogram.lambda[0] <= histogram.lambda[1]);
    }

    #[test]
    fn other_rules_have_a_threshold_or_none_and_no_histogram() {
        let exact = of(Selection::Exact { sparsity: 0.5 });
        assert!(exact.histogram.is_none());
        for row in &exact.rows {
            let threshold = row.threshold.unwrap();
            for (column, score) in row.scores.iter().enumerate() {
                let score = score.unwrap();
                assert!(score == threshold || row.pruned.contains(&column) == (score < threshold));
            }
        }
        let pattern = of(Selection::Pattern(Pattern::new(2, 4).unwrap()));
        assert!(pattern.histogram.is_none());
        let row = &pattern.rows[0];
        assert_eq!(row.pruned.len(), row.scores.len() / 2);
        assert!(row.threshold.is_none() && row.averages.is_empty());
    }
}
