// One thing that is asked of a job: while it is on its way, refused, or answered with how the job stands now.
import { useMutation, useQueryClient, type UseMutationResult } from "@tanstack/react-query";
import { jobQuery } from "../api/jobs";
import type { Job } from "../api/types";

export type Asked = UseMutationResult<Job, Error, void>;

export function useAsked(id: string, ask: (id: string) => Promise<Job>): Asked {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => ask(id),
    onSuccess: (job) => {
      queries.setQueryData(jobQuery(id).queryKey, (known) => (known ? { ...known, ...job } : known));
    },
  });
}
