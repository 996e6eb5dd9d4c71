//! Revisions and watches behind one trait; the embedded store.
