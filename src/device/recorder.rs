//! From kernels to submissions: what is dispatched one after the other becomes one submission, or several where one would take
//! the device too long (`adapter/pace.rs`).

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::Mutex;
use wgpu::BufferUsages as Usage;

use super::adapter::context::Context;
use super::adapter::pace::PRODUCTS;
use super::adapter::submissions::{Submission, WorkSize};
use super::error::Error;
use super::storage::buffer;
use crate::shader::Shader;

/// Kernels on their way to the device.
#[derive(Default)]
pub(crate) struct Recording {
    /// They are there but for a moment in [`Recorder::values`].
    commands: Option<Commands>,
}

/// Commands that are being written down.
struct Commands {
    pass: wgpu::ComputePass<'static>,
    encoder: wgpu::CommandEncoder,
    /// The work so far. It is all of one kind, so that how long it takes says something of that kind.
    work: WorkSize,
}

impl Commands {
    fn begin(context: &Context) -> Self {
        let mut encoder = context.device.create_command_encoder(&Default::default());
        let pass = encoder.begin_compute_pass(&Default::default());
        Self {
            pass: pass.forget_lifetime(),
            encoder,
            work: (PRODUCTS, 0),
        }
    }

    fn submit(self, context: &Context) -> Submission {
        drop(self.pass);
        context.submit(self.encoder, Some(self.work))
    }
}

/// Multiplications that stand for what a workgroup does with one value a lane, and a little around it.
const WORK_OF_STEP: u64 = 4 * 256;

/// Which workgroups of a dispatch: from where on, and how many, along x and y.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) first: [usize; 2],
    pub(crate) count: [usize; 2],
}

impl Groups {
    /// All of `x` by `y`, in parts of at most `most` groups.
    fn in_parts([x, y]: [usize; 2], most: usize) -> impl Iterator<Item = Self> {
        let columns = most.clamp(1, x.max(1));
        let rows = (most / columns).clamp(1, y.max(1));
        (0..y).step_by(rows).flat_map(move |row| {
            (0..x).step_by(columns).map(move |column| Self {
                first: [column, row],
                count: [columns.min(x - column), rows.min(y - row)],
            })
        })
    }
}

/// Uniform blocks that are kept; where experts see ever other numbers of tokens there are ever other ones.
const MAX_UNIFORMS: usize = 4096;

/// An adapter with kernels, each of which is compiled when it is first needed.
pub(crate) struct Recorder<'a> {
    pub(crate) context: &'a Context,
    /// Where a kernel has a binding that it does not use this time.
    pub(crate) nothing: wgpu::Buffer,
    shaders: Vec<&'static Shader>,
    /// Uniform blocks by their bytes; the same few serve every block of the model.
    uniforms: Mutex<HashMap<Vec<u8>, wgpu::Buffer>>,
}

impl<'a> Recorder<'a> {
    /// For the kernels of these shaders.
    pub(crate) fn new(
        context: &'a Context,
        shaders: impl IntoIterator<Item = &'static Shader>,
    ) -> Self {
        Self {
            context,
            // The largest element that a kernel binds.
            nothing: buffer(context, "nothing", 16, Usage::STORAGE),
            shaders: shaders.into_iter().collect(),
            uniforms: Mutex::default(),
        }
    }

    /// Has a kernel run in `x` by `y` workgroups with these buffers by their bindings. `steps` are the values that a lane goes
    /// through, one after the other: the work is booked by them.
    pub(crate) fn dispatch<B: bytemuck::Pod>(
        &self,
        recording: &mut Recording,
        entry_point: &'static str,
        params: &B,
        buffers: &[(u32, &wgpu::Buffer)],
        groups: (usize, usize),
        steps: usize,
    ) {
        let steps = steps.max(1) as u64;
        let work = WORK_OF_STEP * steps * groups.0 as u64 * groups.1 as u64;
        let params = bytemuck::bytes_of(params);
        let work = (PRODUCTS, work);
        self.record(recording, entry_point, params, buffers, groups, work);
    }

    /// The same for a kernel that does much, in as many dispatches and submissions as it takes: `work_of_group` are the
    /// multiplications of a workgroup, and `params` tells the kernel which groups are its.
    pub(crate) fn dispatch_in_parts<B: bytemuck::Pod>(
        &self,
        recording: &mut Recording,
        entry_point: &'static str,
        params: impl Fn(Groups) -> B,
        buffers: &[(u32, &wgpu::Buffer)],
        groups: [usize; 2],
        work_of_group: u64,
    ) {
        let work_of_group = work_of_group.max(1);
        let most = self.context.submission_limit(PRODUCTS) / work_of_group;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        for part in Groups::in_parts(groups, most) {
            let [x, y] = part.count;
            let work = (PRODUCTS, work_of_group * x as u64 * y as u64);
            let params = params(part);
            let params = bytemuck::bytes_of(&params);
            self.record(recording, entry_point, params, buffers, (x, y), work);
        }
    }

    /// Records a dispatch with a uniform block of these bytes, in the next submission if this one would become too long, or is
    /// work of another kind.
    pub(crate) fn record(
        &self,
        recording: &mut Recording,
        entry_point: &'static str,
        params: &[u8],
        buffers: &[(u32, &wgpu::Buffer)],
        (x, y): (usize, usize),
        (kind, work): WorkSize,
    ) {
        let limit = self.context.submission_limit(kind);
        let is_full = |commands: &mut Commands| {
            let (before, done) = commands.work;
            done > 0 && (before != kind || done.saturating_add(work) > limit)
        };
        if let Some(commands) = recording.commands.take_if(is_full) {
            let (before, done) = commands.work;
            let submission = commands.submit(self.context);
            // Until the device's speed is known, each submission that is near the bound tells more of it. What goes wrong is
            // told by `submit`.
            let tells = done >= self.context.submission_limit(before) / 2;
            if tells && !self.context.is_pace_settled(before) {
                let _ = self.context.wait(self.context.map(submission, &[]));
            }
            recording.commands = Some(Commands::begin(self.context));
        }
        let pipeline = self.pipeline(entry_point);
        let uniform = self.uniform(params);
        let mut all = vec![(0, &uniform)];
        all.extend(buffers);
        let group = self.context.bind(&pipeline, entry_point, &all);
        let Some(commands) = &mut recording.commands else {
            return;
        };
        commands.work = (kind, commands.work.1 + work);
        commands.pass.set_pipeline(&pipeline);
        commands.pass.set_bind_group(0, &group, &[]);
        commands.pass.dispatch_workgroups(x as u32, y as u32, 1);
    }

    /// The kernel with this entry point, compiled if it is not.
    fn pipeline(&self, entry_point: &str) -> wgpu::ComputePipeline {
        let kernels = &self.context.kernels;
        let mut kernels = kernels.lock();
        if !kernels.contains_key(entry_point) {
            let has_it = |shader: &&&Shader| {
                let mut entry_points = shader.entry_points.iter();
                entry_points.any(|known| known.name == entry_point)
            };
            if let Some(shader) = self.shaders.iter().find(has_it) {
                kernels.extend(self.context.compile(shader));
            }
        }
        kernels[entry_point].clone()
    }

    /// A uniform block of these bytes.
    fn uniform(&self, bytes: &[u8]) -> wgpu::Buffer {
        let mut uniforms = self.uniforms.lock();
        if let Some(found) = uniforms.get(bytes) {
            return found.clone();
        }
        let size = bytes.len().next_multiple_of(16) as u64;
        let usage = Usage::UNIFORM | Usage::COPY_DST;
        let made = buffer(self.context, "params", size, usage);
        self.context.queue.write_buffer(&made, 0, bytes);
        if uniforms.len() == MAX_UNIFORMS {
            uniforms.clear();
        }
        uniforms.insert(bytes.to_vec(), made.clone());
        made
    }

    /// Submits what `record` dispatches.
    pub(crate) fn submit(&self, record: impl FnOnce(&mut Recording)) -> Result<Submission, Error> {
        self.try_submit(|recording| {
            record(recording);
            Ok(())
        })
    }

    /// The same for what may fail.
    pub(crate) fn try_submit<E: From<Error>>(
        &self,
        record: impl FnOnce(&mut Recording) -> Result<(), E>,
    ) -> Result<Submission, E> {
        let _turn = self.context.turn();
        let mut recording = Recording {
            commands: Some(Commands::begin(self.context)),
        };
        record(&mut recording)?;
        let commands = recording.commands.take();
        let commands = commands.unwrap_or_else(|| Commands::begin(self.context));
        let submission = commands.submit(self.context);
        self.context.check()?;
        Ok(submission)
    }

    /// The first `count` floats that a buffer holds once everything recorded so far is done: submits it, waits, and goes on
    /// recording.
    pub(crate) fn values(
        &self,
        recording: &mut Recording,
        from: &wgpu::Buffer,
        count: usize,
    ) -> Result<Vec<f32>, Error> {
        if let Some(commands) = recording.commands.take() {
            commands.submit(self.context);
        }
        let values = self.download_in_turn(from, count);
        recording.commands = Some(Commands::begin(self.context));
        values
    }

    /// Waits until a submission is done.
    pub(crate) fn wait(&self, submission: Submission) -> Result<(), Error> {
        let _turn = self.context.turn();
        self.context.wait(self.context.map(submission, &[]))
    }

    /// The first `count` floats of a buffer, once everything submitted so far is done.
    pub(crate) fn download(&self, from: &wgpu::Buffer, count: usize) -> Result<Vec<f32>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let _turn = self.context.turn();
        self.download_in_turn(from, count)
    }

    /// The same for a thread whose turn it is already.
    fn download_in_turn(&self, from: &wgpu::Buffer, count: usize) -> Result<Vec<f32>, Error> {
        let words = self.downloads_in_turn(&[(from, 0..count)])?;
        Ok(words.into_iter().flatten().map(f32::from_bits).collect())
    }

    /// Words of some buffers, once everything submitted so far is done.
    pub(crate) fn downloads(
        &self,
        parts: &[(&wgpu::Buffer, Range<usize>)],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let _turn = self.context.turn();
        self.downloads_in_turn(parts)
    }

    fn downloads_in_turn(
        &self,
        parts: &[(&wgpu::Buffer, Range<usize>)],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let device = &self.context.device;
        let mut encoder = device.create_command_encoder(&Default::default());
        let copies: Vec<(wgpu::Buffer, u64)> = parts
            .iter()
            .map(|(from, words)| {
                let bytes = 4 * words.len() as u64;
                let usage = Usage::MAP_READ | Usage::COPY_DST;
                let to = buffer(self.context, "download", bytes, usage);
                encoder.copy_buffer_to_buffer(from, 4 * words.start as u64, &to, 0, bytes);
                (to, bytes)
            })
            .collect();
        let submission = self.context.submit(encoder, None);
        self.context.check()?;
        let maps: Vec<_> = (copies.iter())
            .map(|(to, _)| (to, wgpu::MapMode::Read))
            .collect();
        let mapping = self.context.map(submission, &maps);
        self.context.wait(mapping)?;
        let words = |(to, bytes): &(wgpu::Buffer, u64)| self.context.take_words(to, *bytes);
        copies.iter().map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_group_once_and_none_is_larger_than_it_may_be() {
        for groups in [[1, 1], [5, 3], [172, 8], [7, 1]] {
            for most in [0, 1, 4, 7, 172, 500, usize::MAX] {
                let mut seen = vec![0; groups[0] * groups[1]];
                for part in Groups::in_parts(groups, most) {
                    assert!(part.count[0] * part.count[1] <= most.max(1));
                    for y in part.first[1]..part.first[1] + part.count[1] {
                        for x in part.first[0]..part.first[0] + part.count[0] {
                            seen[y * groups[0] + x] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&times| times == 1), "{groups:?}, {most}");
            }
        }
    }
}
