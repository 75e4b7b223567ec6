// N:M from weights to the mask. An invocation a word of the mask, 64 a workgroup; workgroup y is the row.
//
// The order keys of the workgroup's columns are computed first, neighbours' by neighbours, and then read word by word.
//
// Needs: passes/eight, passes/n_of_m

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

// Stores the keys of eight columns, as many as lie before the last.
fn stage_eight(row: u32, first: u32, last: u32) {
    if first + 8u <= last {
        let here = magnitudes(row, first);
        let even = order_keys_of(here.even, multipliers(row, first));
        let odd = order_keys_of(here.odd, multipliers(row, first + 1u));
        let at = first - first_staged;
        staged[staged_place(at)] = even.x;
        staged[staged_place(at + 1u)] = odd.x;
        staged[staged_place(at + 2u)] = even.y;
        staged[staged_place(at + 3u)] = odd.y;
        staged[staged_place(at + 4u)] = even.z;
        staged[staged_place(at + 5u)] = odd.z;
        staged[staged_place(at + 6u)] = even.w;
        staged[staged_place(at + 7u)] = odd.w;
        return;
    }
    for (var column = first; column < last; column += 1u) {
        staged[staged_place(column - first_staged)] = order_key(row, column);
    }
}

@compute @workgroup_size(64)
fn prune_groups(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let first = group.x * 2048u;
    first_staged = first - first % params.m;
    let after = min(first + 2048u, params.in_features);
    let last = min(after + params.m - 1u, params.in_features);
    for (var column = first_staged + lane * 8u; column < last; column += 512u) {
        stage_eight(row, column, last);
    }
    workgroupBarrier();
    let word = group.x * 64u + lane;
    if word < params.mask_words {
        mask[row * params.mask_words + word] = word_of_groups(row, word);
    }
}
