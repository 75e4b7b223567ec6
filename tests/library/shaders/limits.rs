//! What shaders may take: what WebGPU promises of every adapter.

use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module};
use swiftprune_wgpu::internals::WIDE_WORKGROUP_BYTES;

use super::{each_entry_point, module, shaders};

/// What WebGPU promises of every adapter, and what the documentation of the passes does.
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16 << 10;
const STORAGE_BUFFERS: usize = 4;

#[test]
fn workgroups_have_at_most_256_invocations_in_a_row() {
    each_entry_point(|what, module, _, index, _| {
        let [x, y, z] = module.entry_points[index].workgroup_size;
        assert!((1..=INVOCATIONS).contains(&x), "{what}: {x}");
        assert_eq!((y, z), (1, 1), "{what}");
        let overrides = module.entry_points[index].workgroup_size_overrides;
        assert!(overrides.is_none(), "{what}: naga checks no override");
    });
}

#[test]
fn workgroup_memory_is_at_most_16_kib_but_for_the_shader_that_is_used_where_there_is_more() {
    each_entry_point(|what, module, info, index, _| {
        let bytes = used(module, info, index, |space| {
            *space == AddressSpace::WorkGroup
        })
        .iter()
        .map(|&ty| module.types[ty].inner.size(module.to_ctx()))
        .sum::<u32>();
        let most = if what.starts_with("wide_rows") {
            WIDE_WORKGROUP_BYTES
        } else {
            WORKGROUP_BYTES
        };
        assert!(bytes <= most, "{what}: {bytes} bytes");
    });
}

#[test]
fn an_entry_point_has_at_most_4_storage_buffers() {
    let mut most = 0;
    each_entry_point(|what, module, info, index, _| {
        let is_storage = |space: &AddressSpace| matches!(space, AddressSpace::Storage { .. });
        let buffers = used(module, info, index, is_storage).len();
        assert!(buffers <= STORAGE_BUFFERS, "{what}: {buffers}");
        most = most.max(buffers);
    });
    assert!(
        most > 1,
        "the score reads weights and factors and writes keys"
    );
}

#[test]
fn every_binding_is_in_group_0_and_no_two_share_a_number() {
    for pass in shaders() {
        let (module, _) = module(pass);
        let mut numbers: Vec<u32> = Vec::new();
        for (_, variable) in module.global_variables.iter() {
            if let Some(binding) = &variable.binding {
                assert_eq!(binding.group, 0, "{}: {:?}", pass.name, variable.name);
                numbers.push(binding.binding);
            }
        }
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[0] != w[1]), "{}", pass.name);
    }
}

/// The types of the variables in such an address space that the entry point uses.
fn used(
    module: &Module,
    info: &ModuleInfo,
    index: usize,
    space: impl Fn(&AddressSpace) -> bool,
) -> Vec<naga::Handle<naga::Type>> {
    let entry = info.get_entry_point(index);
    module
        .global_variables
        .iter()
        .filter(|(handle, variable)| !entry[*handle].is_empty() && space(&variable.space))
        .map(|(_, variable)| variable.ty)
        .collect()
}
