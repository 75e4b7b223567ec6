//! Every pass, alone and fused, beside a copy of the same bytes, and a whole file beside a plain copy; under criterion,
//! which compares a run with the last one. `swiftprune-wgpu bench` measures the same for a record to share.
//!
//! ```text
//! cargo bench                                           the CPU, and hardware adapters
//! SWIFTPRUNE_BENCH_DEVICES=cpu,llvmpipe cargo bench     devices by name, as for --device
//! cargo bench -- pass/cpu                               some of it
//! ```
//!
//! Nothing here fails because it is slow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::bench::synthetic::{Shape, VOCABULARY, generate};
use swiftprune_wgpu::checkpoint::{Checkpoint, Output, OutputOptions};
use swiftprune_wgpu::device::Rows;
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceKind, devices};
use swiftprune_wgpu::internals::{self, MATRICES, weights};
use swiftprune_wgpu::norms::Norms;
use swiftprune_wgpu::plan::{Ewma, Pattern, Selection};
use swiftprune_wgpu::plan::{Options, Plan};
use swiftprune_wgpu::prune::{Stop, prune};

/// Layers of the generated checkpoints: 350 MB and 2.2 GB.
const LAYERS: [usize; 2] = [1, 22];

criterion_group!(benches, passes, files);
criterion_main!(benches);

/// Every pass on every device, by dtype and shape; one thread on the CPU.
fn passes(c: &mut Criterion) {
    for (name, device) in chosen() {
        let is_software = device.info().kind == DeviceKind::Software;
        for dtype in Dtype::ALL {
            for (_, rows, in_features) in MATRICES {
                // A sixteenth of a matrix; a software adapter needs seconds for more than a few rows.
                let rows = if is_software { 64 } else { rows / 16 };
                let bytes = weights(dtype, rows * in_features);
                let weights = Rows::new(dtype, in_features, &bytes);
                let mut group = c.benchmark_group(format!("pass/{name}"));
                group
                    .throughput(Throughput::ElementsAndBytes {
                        elements: (rows * in_features) as u64,
                        bytes: bytes.len() as u64,
                    })
                    .sample_size(10)
                    .warm_up_time(Duration::from_millis(200))
                    .measurement_time(Duration::from_millis(500));
                for (what, timed, recipe) in internals::passes(in_features) {
                    let case = format!("{}-{rows}x{in_features}", dtype.name());
                    let mut timer = device
                        .timer(timed, weights, &recipe)
                        .expect("the device works");
                    group.bench_function(BenchmarkId::new(what, case), |b| {
                        b.iter_custom(|repetitions| {
                            let repetitions = u32::try_from(repetitions).unwrap_or(u32::MAX);
                            let elapsed = timer.run(repetitions).expect("the device works");
                            elapsed.device.unwrap_or(elapsed.wall)
                        })
                    });
                }
                group.finish();
            }
        }
    }
}

/// File to file beside a plain copy, by size of the file and number of threads.
fn files(c: &mut Criterion) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for layers in LAYERS {
        let dir = dir.join(format!("tinyllama-{layers}"));
        let model = dir.join("model.safetensors");
        if !model.exists() {
            generate(&dir, &Shape::tiny_llama(layers, VOCABULARY))
                .expect("there is room for the checkpoint");
        }
        let norms = Norms::read(&dir.join("norms.safetensors")).expect("just generated");
        let out = dir.join("out.safetensors");
        let bytes = model.metadata().expect("just generated").len();
        let mut group = c.benchmark_group(format!("file/{} MB", bytes / 1_000_000));
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        group.bench_function("copy", |b| {
            b.iter(|| {
                std::fs::remove_file(&out).ok();
                std::fs::copy(&model, &out).expect("there is room for a copy")
            })
        });
        for threads in [1, cores] {
            for (rule, selection) in rules() {
                group.bench_function(BenchmarkId::new(rule, format!("{threads} threads")), |b| {
                    b.iter(|| whole_file(&model, &out, &norms, selection, threads))
                });
            }
        }
        group.finish();
        std::fs::remove_file(&out).ok();
    }
}

fn whole_file(model: &Path, out: &PathBuf, norms: &Norms, selection: Selection, threads: usize) {
    std::fs::remove_file(out).ok();
    let options = Options::new(selection);
    let checkpoint =
        Checkpoint::open(model.to_str().expect("a path in UTF-8")).expect("a checkpoint");
    let plan = Plan::new(checkpoint, options, Some(norms.clone())).expect("norms that fit");
    let device = Device::open(&DeviceChoice::Cpu)
        .expect("the CPU is there")
        .with_threads(Some(threads));
    let output = Output::create(
        plan.checkpoint(),
        out,
        &OutputOptions::new().overwrite(true),
    )
    .expect("room for the output");
    prune(&plan, &device, output, &|_| (), &Stop::new()).expect("finite weights");
}

fn rules() -> [(&'static str, Selection); 3] {
    let pattern = Pattern::new(2, 4).expect("a pattern");
    let (sparsity, ewma) = (0.5, Ewma::default());
    [
        ("2:4", Selection::Pattern(pattern)),
        ("exact", Selection::Exact { sparsity }),
        ("ewma", Selection::Ewma { sparsity, ewma }),
    ]
}

/// The devices of `SWIFTPRUNE_BENCH_DEVICES`, else the CPU and every hardware adapter; a missing one is an error.
fn chosen() -> Vec<(String, Device)> {
    let names = match std::env::var("SWIFTPRUNE_BENCH_DEVICES") {
        Ok(names) => names.split(',').map(str::to_owned).collect(),
        Err(_) => {
            let hardware = devices().into_iter().filter(|info| info.kind.is_hardware());
            let mut names: Vec<String> = hardware
                .filter_map(|info| info.index)
                .map(|index| index.to_string())
                .collect();
            names.insert(0, "cpu".to_owned());
            names
        }
    };
    let open = |name: String| {
        let choice = name.parse().expect("any text names a device");
        let device = Device::open(&choice).unwrap_or_else(|error| panic!("{error}"));
        let device = device.with_threads(Some(1));
        let info = device.info().clone();
        (format!("{} {}", info.backend, info.name), device)
    };
    names.into_iter().map(open).collect()
}
