-- Orthanc calls this when nothing has come for a series for "StableAge" seconds.
function OnStableSeries(seriesId, tags, metadata)
  local isScan = tags['Modality'] == 'CT' or tags['Modality'] == 'MR'
  -- what the node itself has sent does not go back to it
  if isScan and metadata['RemoteAET'] ~= 'SLICEINTERP' then
    -- a job: it is listed under /jobs, and POST /jobs/ID/resubmit sends again what the node could not take
    RestApiPost('/modalities/sliceinterp/store', DumpJson({ Resources = { seriesId }, Asynchronous = true }))
  end
end
