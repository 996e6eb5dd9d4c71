//! IN: what the API server wants of this node. Kubernetes types stop here.
