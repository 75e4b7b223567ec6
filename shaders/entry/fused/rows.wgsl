// Rows of at most 4096 columns as logarithms, in less than 12 KiB of workgroup memory; longer ones by keys.
//
// Needs: passes/fused

const CAPACITY: u32 = 4096u;

@compute @workgroup_size(256)
fn prune_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    prune_row(group.x, lane);
}
