//! CRI v1: generated types, client and a fake.
