//! The Common Expression Language as Kubernetes v1.37 uses it: expressions in CustomResourceDefinitions, admission policies,
//! webhook configurations and device selectors. Knows values and types, not what they are rules about.
