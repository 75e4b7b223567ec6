// N:M from weights to the mask. An invocation a word of the mask, 64 a workgroup; workgroup y is the row.
//
// The order keys of the workgroup's columns are computed first, neighbours' by neighbours, and then read word by word.

// One bit a weight, 1 = pruned; params.mask_words words a row, the bits past the last column 0.
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;

// The columns of 64 words, and the rest of the groups that lie across their ends.
const STAGED: u32 = 2048u + 64u;
var<workgroup> staged: array<u32, STAGED>;
var<private> first_staged: u32;

// Where a key lies: an invocation reads 32 on end, and like this neighbours' are not in the same memory bank.
fn staged_place(index: u32) -> u32 {
    return index ^ ((index >> 5u) & 31u);
}

fn group_key(row: u32, column: u32) -> u32 {
    return staged[staged_place(column - first_staged)];
}

@compute @workgroup_size(64)
fn prune_groups(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let first = group.x * 2048u;
    first_staged = first - first % params.m;
    let after = min(first + 2048u, params.in_features);
    let last = min(after + params.m - 1u, params.in_features);
    for (var column = first_staged + lane; column < last; column += 64u) {
        staged[staged_place(column - first_staged)] = order_key(row, column);
    }
    workgroupBarrier();
    let word = group.x * 64u + lane;
    if word < params.mask_words {
        mask[row * params.mask_words + word] = word_of_groups(row, word);
    }
}
