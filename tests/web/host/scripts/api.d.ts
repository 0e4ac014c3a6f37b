// The host's server, as far as web/ talks to it.
export const api: EventTarget & {
  fetchApi(route: string): Promise<Response>;
  queuePrompt?: (...given: any[]) => Promise<{ prompt_id?: string } | undefined>;
};
