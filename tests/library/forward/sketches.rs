//! Sketches of a layer's inputs: every device takes the same ones, of models with and without experts.

use swiftprune_wgpu::calibration::ForwardError;
use swiftprune_wgpu::internals::{Architecture, Forward, SiteStatistics};

use super::{cpu, difference, folder, golden, on_every_device, open, unwatched};

/// Of a model's sites, at this rank.
fn sketches(forward: &Forward<'_>, tokens: &[u32], rank: usize) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    let mut take = |of_site: SiteStatistics| {
        let sketch = of_site.sketch.expect("asked for");
        assert_eq!(sketch.len(), rank * of_site.site.in_features);
        all.push((of_site.site.readers[0].clone(), sketch));
        Ok::<_, ForwardError>(())
    };
    forward
        .statistics_by_block(&[tokens], Some(rank), &unwatched, &mut take)
        .unwrap();
    all
}

#[test]
fn every_device_takes_the_sketches_that_the_cpu_takes() {
    let rank = 70;
    for name in ["llama", "mixtral"] {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        let tokens = golden(name).tokens;
        let one = cpu(1);
        let expected = sketches(
            &Forward::new(&checkpoint, &architecture, &one),
            &tokens,
            rank,
        );
        on_every_device(|device| {
            let got = sketches(
                &Forward::new(&checkpoint, &architecture, device),
                &tokens,
                rank,
            );
            assert_eq!(expected.len(), got.len());
            for ((site, expected), (_, got)) in expected.iter().zip(&got) {
                let off = difference(expected, got);
                assert!(off < 1e-5, "{name} on {}: {site}: {off}", device.info());
            }
        });
    }
}
