//! What is kept of the input of some linear layers: sums over its tokens.
//!
//! Within a window, or a chunk of one, they are added in f32 where the activations are; from there on in f64 on the host, so that
//! a long calibration loses nothing to rounding. To add one: a field of [`InputSums`], the CPU's half in [`Wanted::of`], the
//! adapter's in `gpu/statistics.rs`.

use super::error::Error;
use crate::model::{DecoderBlock, Site};
use crate::products;
use crate::sketch::omega;

/// What is taken of every input beside its column norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The sums of the features, for their means.
    pub(super) sums: bool,
    /// A sketch of so many columns.
    pub(super) sketch_rank: Option<usize>,
}

/// Sums over some tokens of an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InputSums<T> {
    /// The tokens: at the inputs of experts, not all there are.
    pub(super) tokens: u64,
    /// The column norms, `n_j = sum_t x_tj^2`.
    pub(super) squares: Vec<T>,
    /// `sum_t x_tj`, where they are wanted.
    pub(super) sums: Vec<T>,
    /// `X^T (X Omega)`, `[in_features, rank]` row-major, where it is wanted: `crate::sketch` says what for.
    pub(super) sketch: Vec<T>,
}

/// What a step showed of one input of a block.
#[derive(Debug)]
pub(super) struct Observation {
    /// The number of the window in its batch.
    pub(super) window: usize,
    /// The number of the input in its block.
    pub(super) input: usize,
    pub(super) sums: InputSums<f32>,
}

impl Wanted {
    /// How many columns the sketch has.
    pub(super) fn rank(self) -> usize {
        self.sketch_rank.unwrap_or(0)
    }

    /// Numbers that are taken of an input with so many features.
    pub(super) fn numbers(self, in_features: usize) -> usize {
        in_features * (1 + usize::from(self.sums) + self.rank())
    }

    /// Those of `[tokens, in_features]`, row-major.
    pub(super) fn of(self, x: &[f32], in_features: usize) -> Result<InputSums<f32>, Error> {
        let sketch = self.sketch_rank.map(|rank| sketch(x, in_features, rank));
        Ok(InputSums {
            tokens: (x.len() / in_features) as u64,
            squares: columns(x, in_features, |x| x * x),
            sums: if self.sums {
                columns(x, in_features, |x| x)
            } else {
                Vec::new()
            },
            sketch: sketch.transpose()?.unwrap_or_default(),
        })
    }

    /// Those that an adapter wrote down one behind the other.
    pub(super) fn of_numbers(
        self,
        numbers: &[f32],
        in_features: usize,
        tokens: usize,
    ) -> InputSums<f32> {
        let (squares, rest) = numbers.split_at(in_features);
        let (sums, sketch) = rest.split_at(if self.sums { in_features } else { 0 });
        InputSums {
            tokens: tokens as u64,
            squares: squares.to_vec(),
            sums: sums.to_vec(),
            sketch: sketch.to_vec(),
        }
    }

    /// Numbers that are taken of one window in one block.
    pub(super) fn of_block(self, block: &DecoderBlock) -> usize {
        let inputs = block.inputs().into_iter();
        let numbers = inputs.map(|input| self.numbers(input.layers[0].in_features));
        numbers.sum()
    }
}

/// The sum of a function of each column's values.
fn columns(x: &[f32], in_features: usize, of: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut sums = vec![0.0_f32; in_features];
    for row in x.chunks_exact(in_features) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += of(*x);
        }
    }
    sums
}

/// The sketch: two thin products.
fn sketch(x: &[f32], in_features: usize, rank: usize) -> Result<Vec<f32>, products::Error> {
    let omega = omega(in_features, rank);
    let x = products::rows(x, in_features)?;
    let (mut along, mut sketch) = (Vec::new(), Vec::new());
    products::multiply(x, products::rows(&omega, rank)?, &mut along)?;
    products::multiply(x.transposed(), products::rows(&along, rank)?, &mut sketch)?;
    Ok(sketch)
}

/// What a block showed so far, input by input; of one that nothing reached, no numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct BlockSums(Vec<InputSums<f64>>);

impl BlockSums {
    /// Adds what a batch showed, its windows in their order.
    pub(super) fn add(&mut self, mut observations: Vec<Observation>) {
        observations.sort_by_key(|observation| observation.window);
        for Observation { input, sums, .. } in observations {
            if self.0.len() <= input {
                self.0.resize_with(input + 1, InputSums::default);
            }
            let own = &mut self.0[input];
            own.tokens += sums.tokens;
            for (own, sums) in [
                (&mut own.squares, sums.squares),
                (&mut own.sums, sums.sums),
                (&mut own.sketch, sums.sketch),
            ] {
                own.resize(sums.len(), 0.0);
                for (own, sum) in own.iter_mut().zip(sums) {
                    *own += f64::from(sum);
                }
            }
        }
    }
}

/// What was observed of the input of some linear layers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SiteStatistics {
    /// Where.
    pub site: Site,
    /// The sum of squares of each feature over all tokens, `[in_features]`.
    pub column_norms: Vec<f32>,
    /// The mean of each feature, `[in_features]`, where it was asked for.
    pub means: Option<Vec<f32>>,
    /// The tokens that came by: all of them but at the sites of experts.
    pub tokens: u64,
    /// The sketch, `[in_features, rank]` row-major, where one was asked for.
    pub sketch: Option<Vec<f32>>,
}

impl SiteStatistics {
    /// Those of a block's sites, out of what was observed there.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Engine`] where every token should have come by and none did.
    pub(super) fn of_block(
        sites: impl Iterator<Item = Site>,
        wanted: Wanted,
        BlockSums(mut sums): BlockSums,
    ) -> Result<Vec<Self>, Error> {
        let sites: Vec<Site> = sites.collect();
        sums.resize_with(sites.len(), InputSums::default);
        let of_site = |(site, sums): (Site, InputSums<f64>)| {
            let in_features = site.in_features;
            if sums.squares.is_empty() && site.expert.is_none() {
                let what = format!("{} was not observed", site.label);
                return Err(Error::Engine(what));
            }
            let as_f32 = |mut sums: Vec<f64>, count: usize| -> Vec<f32> {
                sums.resize(count, 0.0);
                sums.into_iter().map(|sum| sum as f32).collect()
            };
            let tokens = sums.tokens.max(1) as f64;
            let means = wanted.sums.then(|| {
                let means = sums.sums.iter().map(|sum| sum / tokens);
                as_f32(means.collect(), in_features)
            });
            let rank = wanted.sketch_rank;
            let found = Self {
                column_norms: as_f32(sums.squares, in_features),
                means,
                tokens: sums.tokens,
                sketch: rank.map(|rank| as_f32(sums.sketch, in_features * rank)),
                site,
            };
            let sketch = found.sketch.iter().flatten();
            let mut all = found.column_norms.iter().chain(sketch);
            if all.any(|number| !number.is_finite()) {
                return Err(Error::NotFinite {
                    at: found.site.readers[0].clone(),
                });
            }
            Ok(found)
        };
        sites.into_iter().zip(sums).map(of_site).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Random;

    #[test]
    fn a_sketch_is_the_product_with_the_gram_matrix_in_f64() {
        let (tokens, in_features, rank) = (9, 33, 70);
        let mut random = Random::new(3);
        let x: Vec<f32> = (0..tokens * in_features)
            .map(|_| random.normal() as f32)
            .collect();
        let signs = omega(in_features, rank);
        let got = sketch(&x, in_features, rank).unwrap();
        for j in 0..in_features {
            for k in 0..rank {
                let mut wanted = 0.0;
                for row in x.chunks_exact(in_features) {
                    let along: f64 = (0..in_features)
                        .map(|i| f64::from(row[i]) * f64::from(signs[i * rank + k]))
                        .sum();
                    wanted += f64::from(row[j]) * along;
                }
                let got = f64::from(got[j * rank + k]);
                assert!((got - wanted).abs() < 1e-4, "{j}, {k}: {got}, not {wanted}");
            }
        }
    }

    #[test]
    fn what_an_adapter_writes_down_is_read_in_its_order() {
        for sums in [false, true] {
            for sketch_rank in [None, Some(2)] {
                let wanted = Wanted { sums, sketch_rank };
                let x: Vec<f32> = (1..=12).map(|x| x as f32).collect();
                let of_rows = wanted.of(&x, 3).unwrap();
                let numbers: Vec<f32> = [&of_rows.squares, &of_rows.sums, &of_rows.sketch]
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect();
                assert_eq!(numbers.len(), wanted.numbers(3));
                assert_eq!(wanted.of_numbers(&numbers, 3, 4), of_rows);
            }
        }
    }

    #[test]
    fn windows_add_up_in_their_order_and_in_f64() {
        let observation = |window, squares: f32| Observation {
            window,
            input: 1,
            sums: InputSums {
                tokens: 2,
                squares: vec![squares],
                ..InputSums::default()
            },
        };
        let mut sums = BlockSums::default();
        sums.add(vec![observation(1, 1e-9), observation(0, 1.0)]);
        assert_eq!(sums.0[1].squares, [1.0 + f64::from(1e-9_f32)]);
        assert_eq!(sums.0[1].tokens, 4);
        assert!(sums.0[0].squares.is_empty(), "nothing was observed");
    }
}
