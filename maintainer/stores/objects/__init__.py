"""What stores in buckets and containers share: blobs and indexes are objects under keys."""
