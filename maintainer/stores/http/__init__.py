"""HTTP for stores: requests that are counted, retried and paced, and what responses say."""
