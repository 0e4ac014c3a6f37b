// The host's websocket, as far as web/ listens to it.
export const api: EventTarget;
