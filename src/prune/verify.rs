//! Verifying: an output held against its original, byte by byte, as any reader of both files could.
//!
//! Nothing here knows how a mask was chosen. What must hold: the headers are equal; the files beside the weights are those that
//! pruning copies, and no others; tensors that are not pruned have the same bytes; a weight that was pruned is +0.0 and every
//! other one keeps its bits, or with compensation is finite; NaN and infinities stay; each row has the zeros that were asked
//! for, and each group of N:M as many. The same pieces as a run's are read, from both files, by all threads; memory is two
//! chunks a thread. The first fault in the order of the bytes is reported, whichever thread finds one first.

use std::ops::Range;

use serde::Serialize;

use super::chunk::Chunk;
use super::fault::{Fault, VerifyError};
use super::matrix::Matrix;
use super::pieces::{self, Piece};
use crate::checkpoint::{self, Checkpoint, Reader, Source};
use crate::compensation::decode;
use crate::counts::Counts;
use crate::dtype::{Dtype, Weight, with_weights};
use crate::plan::{Draft, Options};
use crate::selection::Selection;
use crate::stop::Stop;
use crate::workers::share_out;

/// Magnitude bits of an infinity; those of a NaN are above.
const NON_FINITE: u32 = f32::INFINITY.to_bits();

/// Bytes that are read at a time, of each file.
const CHUNK_BYTES: usize = 1 << 20;

/// What the weights that stay must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Survivors {
    /// Their bits are the original's.
    #[default]
    Unchanged,
    /// They were compensated: finite, and not zero where the original is not.
    Compensated,
}

impl Survivors {
    /// Those of a run with these options.
    #[must_use]
    pub const fn of(options: &Options) -> Self {
        match options.compensation {
            Some(_) => Self::Compensated,
            None => Self::Unchanged,
        }
    }
}

/// What was found in an output without a fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Verified {
    /// Bytes that were compared, headers included.
    pub bytes: u64,
    /// Weights of the tensors that may be pruned.
    pub weights: u64,
    /// Zeros among them.
    pub zeros: u64,
    /// Zeros that the original does not have.
    pub new_zeros: u64,
    /// What was counted of each tensor of the draft; `None` for those that are not pruned. With [`Survivors::Compensated`] its
    /// squares, too.
    #[serde(skip)]
    pub tensors: Vec<Option<Counts>>,
}

impl Verified {
    fn add(&mut self, tensor: usize, counts: &Counts) {
        self.weights += counts.weights;
        self.zeros += counts.zeros;
        self.new_zeros += counts.zeros - counts.zeros_before;
        if self.tensors.len() <= tensor {
            self.tensors.resize(tensor + 1, None);
        }
        *self.tensors[tensor].get_or_insert_default() += *counts;
    }
}

/// Holds `output` against the original of `draft`: only the tensors that it prunes may differ, in zeros, and each of their
/// rows must have what its selection asks for (a fixed lambda asks for nothing).
///
/// `progress` is told of bytes that were compared, from several threads.
///
/// # Errors
/// [`VerifyError::Fault`] with the first fault in the order of the bytes; [`VerifyError::Checkpoint`];
/// [`VerifyError::Stopped`] if a stop was requested before all was compared.
pub fn verify(
    draft: &Draft,
    output: &Checkpoint,
    survivors: Survivors,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
    stop: &Stop,
) -> Result<Verified, VerifyError> {
    let original = draft.checkpoint();
    let mut verified = Verified {
        bytes: headers(original, output)?,
        ..Verified::default()
    };
    progress(verified.bytes);
    let differences = checkpoint::companion_differences(original, output)?;
    if !differences.is_empty() {
        return Err(VerifyError::Fault {
            file: output.source.weights().path().to_path_buf(),
            fault: Fault::Companions(differences),
        });
    }
    let readers = [Reader::open(original)?, Reader::open(output)?];
    let (matrices, pieces) = pieces::cut(draft, None, |matrix| {
        CHUNK_BYTES / matrix.place.row_bytes().max(1)
    });
    // Copies of another tensor's size are compared a chunk at a time, too.
    let work = Verification {
        draft,
        output,
        survivors,
        readers,
        matrices,
        stop,
    };
    let pieces: Vec<Piece> = pieces.into_iter().flat_map(in_chunks).collect();
    let of_threads = share_out(
        threads,
        &pieces,
        || Ok((Verified::default(), [Chunk::default(), Chunk::default()])),
        |(found, chunks), piece| {
            let before = found.bytes;
            let result = work.compare(piece, chunks, found);
            progress(found.bytes - before);
            result
        },
        |(found, _)| found,
    )?;
    verified.tensors.resize(draft.tensors().len(), None);
    for found in of_threads {
        verified.bytes += found.bytes;
        for (tensor, counts) in found.tensors.iter().enumerate() {
            counts
                .iter()
                .for_each(|counts| verified.add(tensor, counts));
        }
    }
    // A tensor without rows is in no piece.
    for (counts, tensor) in verified.tensors.iter_mut().zip(draft.tensors()) {
        if tensor.target().is_some() {
            counts.get_or_insert_default();
        }
    }
    Ok(verified)
}

/// Compares names, lengths and headers; the bytes of the headers.
fn headers(original: &Checkpoint, output: &Checkpoint) -> Result<u64, VerifyError> {
    let counts = [original.shards.len(), output.shards.len()];
    if counts[0] != counts[1] {
        return Err(VerifyError::Fault {
            file: output.source.weights().path().to_path_buf(),
            fault: Fault::Shards {
                original: counts[0],
                output: counts[1],
            },
        });
    }
    let mut bytes = 0;
    for (from, to) in original.shards.iter().zip(&output.shards) {
        let fault = |fault| VerifyError::Fault {
            file: to.path.clone(),
            fault,
        };
        // A file that is the whole output may be called as one likes.
        let is_in_directory = [original, output]
            .iter()
            .all(|checkpoint| !matches!(checkpoint.source, Source::File(_)));
        if (counts[0] > 1 || is_in_directory) && from.file_name != to.file_name {
            return Err(fault(Fault::ShardName {
                original: from.file_name.clone(),
            }));
        }
        let (ours, theirs) = (from.header().raw(), to.header().raw());
        if ours != theirs {
            let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
            return Err(fault(Fault::Header {
                byte: differs.unwrap_or(ours.len().min(theirs.len())),
            }));
        }
        if from.len != to.len {
            return Err(fault(Fault::Length {
                original: from.len,
                output: to.len,
            }));
        }
        bytes += ours.len() as u64;
    }
    Ok(bytes)
}

/// A copied span in parts of a chunk's size; rows as they are.
fn in_chunks(piece: Piece) -> Vec<Piece> {
    let Piece::Copy { shard, span } = piece else {
        return vec![piece];
    };
    span.clone()
        .step_by(CHUNK_BYTES)
        .map(|start| Piece::Copy {
            shard,
            span: start..span.end.min(start + CHUNK_BYTES as u64),
        })
        .collect()
}

/// What the threads share.
struct Verification<'a> {
    draft: &'a Draft,
    output: &'a Checkpoint,
    survivors: Survivors,
    /// Of the original, and of the output.
    readers: [Reader<'a>; 2],
    matrices: Vec<Matrix<'a>>,
    stop: &'a Stop,
}

impl Verification<'_> {
    fn compare(
        &self,
        piece: &Piece,
        chunks: &mut [Chunk; 2],
        found: &mut Verified,
    ) -> Result<(), VerifyError> {
        match piece {
            _ if self.stop.is_requested() => Err(VerifyError::Stopped),
            Piece::Copy { shard, span } => self.copied(*shard, span, chunks, found),
            Piece::Prune { matrix, rows } => {
                self.pruned(&self.matrices[*matrix], rows.clone(), chunks, found)
            }
            // The sums of a score are no part of an output.
            Piece::Sums { .. } => Ok(()),
        }
    }

    fn fault(&self, shard: usize, fault: Fault) -> VerifyError {
        VerifyError::Fault {
            file: self.output.shards[shard].path.clone(),
            fault,
        }
    }

    fn copied(
        &self,
        shard: usize,
        span: &Range<u64>,
        chunks: &mut [Chunk; 2],
        found: &mut Verified,
    ) -> Result<(), VerifyError> {
        let len = (span.end - span.start) as usize; // at most a chunk's
        for (reader, chunk) in self.readers.iter().zip(chunks.iter_mut()) {
            reader.read_at(shard, span.start, chunk.resize(len))?;
        }
        found.bytes += len as u64;
        let [original, output] = [chunks[0].bytes(), chunks[1].bytes()];
        if original == output {
            return Ok(());
        }
        let differs = original.iter().zip(output).position(|(a, b)| a != b);
        let byte = span.start + differs.unwrap_or(0) as u64;
        let tensors = self.draft.tensors().iter();
        let tensor = tensors
            .filter(|tensor| tensor.shard == shard)
            .find(|tensor| (tensor.offset..tensor.offset + tensor.len).contains(&byte));
        Err(self.fault(
            shard,
            Fault::Copied {
                tensor: tensor.map_or_else(String::new, |tensor| tensor.name.clone()),
                byte,
            },
        ))
    }

    fn pruned(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        chunks: &mut [Chunk; 2],
        found: &mut Verified,
    ) -> Result<(), VerifyError> {
        for (reader, chunk) in self.readers.iter().zip(chunks.iter_mut()) {
            matrix.read(reader, rows.clone(), chunk)?;
        }
        let in_features = matrix.target.in_features;
        found.bytes += chunks[0].bytes().len() as u64;
        let mut counts = Counts::default();
        if in_features == 0 {
            found.add(matrix.tensor, &counts);
            return Ok(());
        }
        let row_bytes = matrix.place.row_bytes();
        let [original, output] =
            [chunks[0].bytes(), chunks[1].bytes()].map(|bytes| bytes.chunks_exact(row_bytes));
        for ((row, original), output) in rows.zip(original).zip(output) {
            let of_row = check_row(
                matrix.dtype,
                (matrix.selection, self.survivors),
                original,
                output,
            );
            let of_row = of_row.map_err(|fault| {
                let tensor = &self.draft.tensors()[matrix.tensor].name;
                let row = matrix.expert * matrix.target.out_features + row;
                self.fault(matrix.shard, fault.of(tensor, row))
            })?;
            counts += of_row;
        }
        found.add(matrix.tensor, &counts);
        Ok(())
    }
}

/// What is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
enum RowFault {
    Survivor {
        column: usize,
    },
    NegativeZero {
        column: usize,
    },
    NonFinite {
        column: usize,
    },
    Row {
        asked: usize,
        zeros: usize,
    },
    Group {
        column: usize,
        asked: usize,
        zeros: usize,
    },
}

impl RowFault {
    fn of(self, tensor: &str, row: usize) -> Fault {
        let tensor = tensor.to_owned();
        match self {
            Self::Survivor { column } => Fault::Survivor {
                tensor,
                row,
                column,
            },
            Self::NegativeZero { column } => Fault::NegativeZero {
                tensor,
                row,
                column,
            },
            Self::NonFinite { column } => Fault::NonFinite {
                tensor,
                row,
                column,
            },
            Self::Row { asked, zeros } => Fault::Row {
                tensor,
                row,
                asked,
                zeros,
            },
            Self::Group {
                column,
                asked,
                zeros,
            } => Fault::Group {
                tensor,
                row,
                column,
                asked,
                zeros,
            },
        }
    }
}

/// Checks one row of stored weights against the original's.
fn check_row(
    dtype: Dtype,
    asked: (Selection, Survivors),
    original: &[u8],
    output: &[u8],
) -> Result<Counts, RowFault> {
    let (old, new) = (original, output);
    let mut counts = with_weights!(dtype, original, cast_slice, |original| {
        check_weights(asked, original, bytemuck::cast_slice(output))
    })?;
    if asked.1 == Survivors::Compensated {
        for (old, new) in decode(dtype, old).into_iter().zip(decode(dtype, new)) {
            let (old, new) = (f64::from(old), f64::from(new));
            if old.is_finite() {
                counts.squares += old * old;
                counts.squares_changed += (old - new) * (old - new);
            }
        }
    }
    Ok(counts)
}

fn check_weights<W: Weight>(
    (selection, survivors): (Selection, Survivors),
    original: &[W],
    output: &[W],
) -> Result<Counts, RowFault> {
    let is_sound = |a: W, b: W| match survivors {
        Survivors::Unchanged => is_kept_or_zeroed(a, b),
        Survivors::Compensated => is_kept_or_zeroed(a, b) || is_compensated(a, b),
    };
    // Without a branch first: nearly every row is as it should be.
    let is_bad = original
        .iter()
        .zip(output)
        .fold(false, |bad, (&a, &b)| bad | !is_sound(a, b));
    if is_bad {
        return Err(first_bad(original, output, is_sound));
    }
    let all = count(original, output);
    if let Selection::Pattern(pattern) = selection {
        let (n, m) = (pattern.n() as usize, pattern.m() as usize);
        for (group, (original, output)) in original.chunks(m).zip(output.chunks(m)).enumerate() {
            let of_group = count(original, output);
            let asked = zeros_asked(original.len().saturating_sub(n), &of_group);
            if of_group.zeros != asked as u64 {
                return Err(RowFault::Group {
                    column: group * m,
                    asked,
                    zeros: of_group.zeros as usize,
                });
            }
        }
    } else if let Some(k) = selection.k(original.len()) {
        let asked = zeros_asked(k, &all);
        if all.zeros != asked as u64 {
            return Err(RowFault::Row {
                asked,
                zeros: all.zeros as usize,
            });
        }
    }
    Ok(all)
}

/// Counts weights and zeros, before and after.
fn count<W: Weight>(original: &[W], output: &[W]) -> Counts {
    let mut counts = Counts {
        weights: original.len() as u64,
        ..Counts::default()
    };
    for (&a, &b) in original.iter().zip(output) {
        counts.zeros_before += u64::from(a.magnitude_bits() == 0);
        counts.zeros += u64::from(b.magnitude_bits() == 0);
        counts.non_finite += u64::from(a.magnitude_bits() >= NON_FINITE);
    }
    counts
}

/// The zeros that some weights must have of which `k` are to go: what was zero before stays so, and what is not finite is never
/// pruned.
fn zeros_asked(k: usize, counts: &Counts) -> usize {
    let finite = counts.weights - counts.non_finite;
    (k as u64).max(counts.zeros_before).min(finite) as usize
}

/// The same bits, or +0.0 in place of a finite weight.
#[inline(always)]
fn is_kept_or_zeroed<W: Weight>(original: W, output: W) -> bool {
    let is_finite = original.magnitude_bits() < NON_FINITE;
    let output = bytemuck::bytes_of(&output);
    let is_zero = output.iter().all(|&byte| byte == 0);
    (is_zero & is_finite) | (bytemuck::bytes_of(&original) == output)
}

/// Another weight than before, where both are finite and not zero.
#[inline(always)]
fn is_compensated<W: Weight>(original: W, output: W) -> bool {
    let is_live = |weight: W| (1..NON_FINITE).contains(&weight.magnitude_bits());
    is_live(original) & is_live(output)
}

fn first_bad<W: Weight>(original: &[W], output: &[W], is_sound: impl Fn(W, W) -> bool) -> RowFault {
    let mut pairs = original.iter().zip(output).enumerate();
    match pairs.find(|(_, (a, b))| !is_sound(**a, **b)) {
        Some((column, (a, _))) if a.magnitude_bits() >= NON_FINITE => {
            RowFault::NonFinite { column }
        }
        Some((column, (_, b))) if b.magnitude_bits() == 0 => RowFault::NegativeZero { column },
        Some((column, _)) => RowFault::Survivor { column },
        None => RowFault::Survivor { column: 0 },
    }
}

#[cfg(test)]
mod tests;
