// Counts the submissions of a queue. It is the last dispatch of each, so that the count says which were carried out.

@group(0) @binding(0) var<storage, read_write> submissions: array<u32>;

@compute @workgroup_size(1)
fn count_submission() {
    submissions[0] += 1u;
}
