"""From recordings to transcripts: a model on a device, batches, long recordings, evaluation, output files."""
